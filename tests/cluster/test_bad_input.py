"""Bad input gets one clear sentence, and no worker pod is ever made for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hack.devcluster.cluster import ClusterError
from hack.test_materials import make_tiny_model
from tests.cluster.conftest import new_namespace
from tests.cluster.rows import covers
from tests.cluster_support.admin import Refused
from tests.cluster_support.installation import Installation
from tests.cluster_support.tuning import SHORT_SECONDS, START_SECONDS, Tuning, condition, faq_rows

pytestmark = pytest.mark.cluster


# --- Refused by the API server ------------------------------------------------------------------------


def answer(tuning: Tuning, name: str, **changes: Any) -> str:
    """What ``kubectl apply`` says of a job with ``changes``; the job must not exist afterwards."""
    with pytest.raises(ClusterError) as refused:
        tuning.installation.cluster.apply(tuning.manifest(name, **changes))
    assert tuning.job(name) is None
    return str(refused.value)


@covers("misspelt field")
def test_a_misspelt_field_is_named(shared_tuning: Tuning) -> None:
    assert 'unknown field "spec.training.maxStep"' in answer(shared_tuning, "x", training={"maxStep": 5})


@covers("wrong type")
def test_a_wrong_type_is_named(shared_tuning: Tuning) -> None:
    said = answer(shared_tuning, "x", training={"maxSteps": "many"})
    assert "spec.training.maxSteps" in said
    assert "must be of type integer" in said


@covers("epochs and maxSteps both")
def test_epochs_beside_max_steps(shared_tuning: Tuning) -> None:
    said = answer(shared_tuning, "x", training={"epochs": 1})
    assert "write either training.epochs or training.maxSteps" in said


@covers("lora block under Full")
def test_a_lora_block_under_full(shared_tuning: Tuning) -> None:
    said = answer(shared_tuning, "x", method={"type": "Full"})
    assert "method.lora" in said
    assert "LoRA" in said


@covers("any other rule")
def test_a_rule_says_what_to_write(shared_tuning: Tuning) -> None:
    """Each rule has its case in test_api_rules.py; here one is met under the installed chart's own CRD."""
    said = answer(shared_tuning, "x", compute={"processesPerNode": None})
    assert "write how many ranks each node runs" in said


# --- Refused by prepare -------------------------------------------------------------------------------


def chat(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]}


def with_line(number: int, row: Any) -> list[str]:
    """80 good rows with ``row`` at line ``number`` (from 1)."""
    rows = faq_rows(80)
    rows[number - 1] = row if isinstance(row, str) else json.dumps(row)
    return rows


@dataclass(frozen=True)
class Case:
    """A job that prepare refuses: how it differs, and what its status says."""

    name: str
    reason: str
    told: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    rows: list[str] | None = None


SAME_ROLE = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
CASES = [
    Case("no-model", "ModelNotFound", ("modell", "model"), {"model": {"source": "pvc://work/modell"}}),
    Case(
        "no-template",
        "ModelInvalid",
        ("chat template", "dataset.chatTemplate"),
        {"model": {"source": "pvc://work/no-template"}},
    ),
    Case(
        "no-module",
        "ModelInvalid",
        ("query_proj", "q_proj", "down_proj"),
        {"method": {"lora": {"targetModules": ["query_proj"]}}},
    ),
    Case("broken-json", "DataInvalid", ("line 71: not valid JSON",), rows=with_line(71, '{"messages": [}')),
    Case("empty-file", "DataInvalid", ("the file is empty",), rows=[]),
    Case(
        "role-order",
        "DataInvalid",
        ("line 5: turn 2, after user, is user; expected assistant",),
        rows=with_line(5, SAME_ROLE),
    ),
    Case(
        "empty-turn",
        "DataInvalid",
        ("line 9: turn 2 (assistant) is empty",),
        rows=with_line(9, chat("a", " ")),
    ),
    Case(
        "all-truncated",
        "DataInvalid",
        ("20 of 20 rows", "the first 10", "line 1: ", "line 10: ", "longer than 128"),
        rows=[json.dumps(chat("word " * (300 + n), "answer")) for n in range(20)],
    ),
]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def refused(shared_tuning: Tuning) -> Tuning:
    """A namespace in which all CASES were applied at once."""
    no_template = make_tiny_model(shared_tuning.folder / "no-template")
    (no_template / "chat_template.jinja").unlink()
    documents = []
    for case in CASES:
        changes = dict(case.changes)
        if case.rows is not None:
            shared_tuning.write_rows(case.rows, f"{case.name}.jsonl")
            changes["dataset"] = {"train": [{"source": f"pvc://work/{case.name}.jsonl"}]}
        documents.append(shared_tuning.manifest(case.name, **changes))
    shared_tuning.installation.cluster.apply(*documents)
    shared_tuning.jobs += [case.name for case in CASES]
    return shared_tuning


def check_refused(refused: Tuning, name: str) -> None:
    case = BY_NAME[name]
    status = refused.wait_phase(name, "Failed", START_SECONDS)
    assert condition(status, "Failed")["reason"] == case.reason, status["message"]
    assert condition(status, "DataReady")["status"] == "False"
    assert condition(status, "DataReady")["message"] == status["message"]
    for words in case.told:
        assert words in status["message"], status["message"]
    if case.rows is not None:
        assert f"{name}.jsonl" in status["message"]
    assert "plan" not in status
    assert refused.workers_ever(name) == set()
    assert len(refused.pods(name, "prepare")) == 1, "the same input would fail again: one try"


@covers("model folder missing", "ModelNotFound")
def test_a_model_folder_that_is_missing(refused: Tuning) -> None:
    check_refused(refused, "no-model")


@covers("tokenizer without chat template", "ModelInvalid")
def test_a_tokenizer_without_chat_template(refused: Tuning) -> None:
    check_refused(refused, "no-template")


@covers("targetModules that match nothing")
def test_target_modules_that_match_nothing(refused: Tuning) -> None:
    check_refused(refused, "no-module")


@covers("broken JSON on line 71", "DataInvalid")
def test_broken_json_on_line_71(refused: Tuning) -> None:
    check_refused(refused, "broken-json")


@covers("empty file")
def test_an_empty_file(refused: Tuning) -> None:
    check_refused(refused, "empty-file")


@covers("role order wrong")
def test_roles_in_the_wrong_order(refused: Tuning) -> None:
    check_refused(refused, "role-order")


@covers("assistant turn empty")
def test_an_assistant_turn_that_is_empty(refused: Tuning) -> None:
    check_refused(refused, "empty-turn")


@covers("all rows truncated")
def test_all_rows_truncated(refused: Tuning) -> None:
    check_refused(refused, "all-truncated")


@covers("DataNotFound")
def test_a_data_file_that_is_missing_and_the_names_that_exist(refused: Tuning) -> None:
    refused.start("no-file", dataset={"train": [{"source": "pvc://work/trian.jsonl"}]})
    status = refused.wait_phase("no-file", "Failed")
    assert condition(status, "Failed")["reason"] == "DataNotFound", status["message"]
    assert "pvc://work/trian.jsonl" in status["message"]
    assert "next to it there are: all-truncated.jsonl, broken-json.jsonl" in status["message"]
    assert refused.workers_ever("no-file") == set()


# --- Waits --------------------------------------------------------------------------------------------


def wait_missing(tuning: Tuning, name: str, reason: str, thing: str) -> None:
    """Wait until the job says that it waits for ``thing``; nothing of it may run."""

    def says() -> bool:
        return condition(tuning.status(name), "Accepted").get("reason") == reason

    tuning.wait(name, says, f"Accepted says {reason}", 30)
    status = tuning.status(name)
    assert status["phase"] == "Pending"
    assert condition(status, "Accepted")["status"] == "False"
    assert f"{thing} is not in namespace {tuning.namespace} yet" in status["message"]
    assert "goes on by itself" in status["message"]
    assert tuning.pods(name) == []


@covers("Pending", "Preparing", "claim not there yet", "PersistentVolumeClaimNotFound")
def test_a_claim_that_comes_later(tuning: Tuning) -> None:
    name = tuning.start(model={"source": "pvc://models/model"}, nodes=1)
    wait_missing(tuning, name, "PersistentVolumeClaimNotFound", "PersistentVolumeClaim models")
    folder = tuning.folder.with_name(f"{tuning.namespace}-models")
    make_tiny_model(folder / "model")
    tuning.claim("models", folder)
    tuning.wait(name, lambda: tuning.status(name).get("data"), "prepare has read the data", START_SECONDS)
    assert condition(tuning.status(name), "Accepted")["status"] == "True"


@covers("secret not there yet", "SecretNotFound", "ConfigMapNotFound")
def test_a_secret_and_a_config_map_that_come_later(tuning: Tuning) -> None:
    source = {"source": "hf://datasets/org/chats/train.jsonl", "secretRef": {"name": "hub"}}
    rows = {"configMapRef": {"name": "faq", "key": "train.jsonl"}}
    name = tuning.start(dataset={"train": [rows, source]})
    wait_missing(tuning, name, "ConfigMapNotFound", "ConfigMap faq")
    assert "(and 1 more: secret/hub)" in tuning.status(name)["message"]
    data = {"data": {"train.jsonl": "\n".join(faq_rows(8))}}
    tuning.installation.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq"}, **data},
        namespace=tuning.namespace,
    )
    wait_missing(tuning, name, "SecretNotFound", "Secret hub")
    token = base64.b64encode(b"token").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "data": {"HF_TOKEN": token}}
    tuning.installation.cluster.apply(secret, namespace=tuning.namespace)
    tuning.wait(name, lambda: tuning.pods(name, "prepare"), "prepare has started", SHORT_SECONDS)


# --- Changed after creation ---------------------------------------------------------------------------


@covers("spec changed after creation")
def test_a_spec_is_settled_once_made_except_lifecycle(shared_tuning: Tuning) -> None:
    job = shared_tuning.manifest("settled", lifecycle={"suspend": True})
    shared_tuning.apply(job)
    cluster = shared_tuning.installation.cluster
    changed = shared_tuning.manifest("settled", lifecycle={"suspend": True}, training={"maxSteps": 13})
    with pytest.raises(ClusterError, match=r"spec.training can't be changed after creation") as refused:
        cluster.apply(changed)
    assert "only spec.lifecycle can: delete the job and create it again" in str(refused.value)
    shared_tuning.change("settled", maxRestarts=7)
    assert (shared_tuning.job("settled") or {})["spec"]["lifecycle"]["maxRestarts"] == 7


# --- What the operator's own code trips over ----------------------------------------------------------

CRD = "finetunejobs.tunewright.dev"


def lenient(crd: dict[str, Any]) -> dict[str, Any]:
    """The CRD as an older release might have had it: status is anything."""
    changed: dict[str, Any] = json.loads(json.dumps(crd))
    properties = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    phase = {"phase": {"type": "string"}}  # kubectl selects by it
    properties["status"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": phase,
    }
    return changed


@pytest.fixture
def poisoned(installation: Installation) -> Iterator[Tuning]:
    """A namespace with a suspended job ``poison`` whose stored status no release of today would write."""
    tuning = Tuning.make(installation, new_namespace(installation, "poison"))
    cluster = installation.cluster
    crd = cluster.get("crd", CRD)
    own = {key: crd[key] for key in ("apiVersion", "kind", "spec")}
    own["metadata"] = {key: crd["metadata"].get(key) for key in ("name", "annotations", "labels")}
    tuning.start("poison", lifecycle={"suspend": True})
    tuning.wait_phase("poison", "Suspended", 30)
    try:
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(lenient(own)))
        status = {"attempts": [{"number": "first"}], "progress": 5}

        def is_stored() -> bool:
            try:
                stored = installation.api.merge(
                    "finetunejobs", tuning.namespace, "poison", {"status": status}, "status"
                )
            except Refused as refused:  # the API server takes a moment to follow its CRD
                if refused.status != 422:
                    raise
                return False
            return bool(stored["status"].get("progress") == 5)

        tuning.wait("poison", is_stored, "the poison is stored", 30)
    finally:
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(own))
    yield tuning
    tuning.close()


@covers("the operator's code trips over it", "OperatorError")
def test_a_job_that_the_operator_trips_over_disturbs_nobody_else(poisoned: Tuning) -> None:
    poisoned.change("poison", suspend=False)

    def says() -> bool:
        return condition(poisoned.status("poison"), "Ready").get("reason") == "OperatorError"

    poisoned.wait("poison", says, "the job shows an error condition", 60)
    ready = condition(poisoned.status("poison"), "Ready")
    assert ready["status"] == "False"
    assert "other jobs go on" in ready["message"]
    before = [pod["metadata"]["uid"] for pod in poisoned.installation.operator_pods()]
    poisoned.start("healthy", nodes=1)
    poisoned.wait(
        "healthy", lambda: poisoned.status("healthy").get("data"), "another job goes on", START_SECONDS
    )
    assert [pod["metadata"]["uid"] for pod in poisoned.installation.operator_pods()] == before
    assert poisoned.workers_ever("poison") == set()
