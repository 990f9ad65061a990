"""The life of a FineTuneJob on a real API server: defaults, immutability, status, columns, explain."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api_rig import GROUP, Api, definition_for_tests, install
from tests.cluster_fixtures import DevCluster
from tests.unit.api.cases import MINIMAL, merged
from tunewright.api.immutable import MESSAGE
from tunewright.api.spec import FineTuneJobSpec, parse_spec
from tunewright.api.status import Condition, FineTuneJobStatus, PlanStatus, ProgressStatus
from tunewright.core.names import FINALIZER

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def crd(dev_cluster: DevCluster) -> Iterator[dict[str, Any]]:
    definition = definition_for_tests()
    install(dev_cluster, definition)
    yield definition
    dev_cluster.kubectl("delete", "crd", definition["metadata"]["name"])


@pytest.fixture
def api(dev_cluster: DevCluster, namespace: str, crd: dict[str, Any]) -> Api:
    return Api(dev_cluster, namespace)


def test_the_server_fills_in_the_models_defaults(api: Api) -> None:
    assert api.create(api.job()) == ""
    stored = api.get()["spec"]
    # What the server wrote is all that the models would assume: reading either gives the same.
    assert parse_spec(stored) == parse_spec(MINIMAL)
    assert stored["training"]["batch"] == {"global": 32, "micro": "Auto"}
    assert stored["compute"]["gpusPerNode"] == 1
    assert "epochs" not in stored["training"]
    assert "lora" not in stored["method"]
    assert stored["dataset"]["train"] == MINIMAL["dataset"]["train"]
    written = FineTuneJobSpec.model_validate(stored).model_dump(by_alias=True, exclude_none=True)
    assert {**written, "dataset": None} == {**stored, "dataset": None}


def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    assert api.create(api.job()) == ""
    before = api.get()["metadata"]
    assert api.patch({"spec": MINIMAL}) == ""
    assert api.get()["metadata"]["resourceVersion"] == before["resourceVersion"]


FULL_SPEC = merged(
    MINIMAL,
    {
        "model": {"revision": "main"},
        "training": {"epochs": 2, "batch": {"global": 32, "micro": 4}, "learningRate": 0.1},
        "deepspeed": {"zeroStage": 3, "config": {"a": 1, "zero_optimization": {"b": 1}}},
        "compute": {"resources": {"cpu": 4}, "sharedMemory": "1Gi", "nodeSelector": {"a": "b"}},
        "podTemplate": {"labels": {"a": "b"}, "env": [{"name": "A", "value": "1"}]},
    },
)


@pytest.mark.parametrize(
    ("changes", "block"),
    [
        ({"task": "TextGeneration"}, "task"),
        ({"model": {"source": "hf://org/other"}}, "model"),
        ({"model": {"revision": None}}, "model"),
        ({"model": {"secretRef": {"name": "x"}}}, "model"),
        ({"dataset": {"train": [{"source": "pvc://data/other.jsonl"}]}}, "dataset"),
        ({"dataset": {"validationFraction": 0.1}}, "dataset"),
        ({"method": {"type": "Full"}}, "method"),
        ({"method": {"lora": {}}}, "method"),
        ({"training": {"epochs": 3}}, "training"),
        ({"training": {"epochs": None}}, "training"),
        ({"training": {"seed": 1}}, "training"),
        ({"training": {"batch": {"micro": 2}}}, "training"),
        ({"training": {"batch": {"micro": "2"}}}, "training"),
        ({"training": {"optimizer": {"beta1": 0.5}}}, "training"),
        ({"deepspeed": {"zeroStage": 2}}, "deepspeed"),
        ({"deepspeed": {"zeroStage": "2"}}, "deepspeed"),
        ({"deepspeed": {"zeroStage": "Auto"}}, "deepspeed"),
        ({"deepspeed": {"config": {"a": 2}}}, "deepspeed"),
        ({"deepspeed": {"config": {"c": 2}}}, "deepspeed"),
        ({"deepspeed": {"config": {"zero_optimization": {"b": 2}}}}, "deepspeed"),
        ({"deepspeed": {"config": None}}, "deepspeed"),
        ({"compute": {"nodes": 2}}, "compute"),
        ({"compute": {"resources": {"cpu": 8}}}, "compute"),
        ({"compute": {"resources": None}}, "compute"),
        ({"compute": {"nodeSelector": {"a": "c"}}}, "compute"),
        ({"workspace": {"source": "pvc://scratch"}}, "workspace"),
        ({"checkpoint": {"keep": 1}}, "checkpoint"),
        ({"output": {"destination": "pvc://adapters/other"}}, "output"),
        ({"podTemplate": None}, "podTemplate"),
        ({"podTemplate": {"env": [{"name": "A", "value": "2"}]}}, "podTemplate"),
    ],
    ids=str,
)
def test_a_spec_stays_as_it_was_created(shared_job: Api, changes: dict[str, Any], block: str) -> None:
    answer = shared_job.patch({"spec": changes})
    assert f"spec.{block}: Invalid value: {MESSAGE.format(name=block)}" in answer
    assert shared_job.get()["metadata"]["generation"] == 1


@pytest.fixture(scope="module")
def shared_job(dev_cluster: DevCluster, crd: dict[str, Any]) -> Api:
    """A job that no change gets into."""
    api = Api(dev_cluster, "default")
    assert api.create(api.job(FULL_SPEC)) == ""
    return api


@pytest.mark.parametrize(
    "changes",
    [
        {"deepspeed": {"zeroStage": "3"}},
        {"training": {"batch": {"micro": "4"}}},
        {"training": {"learningRate": 0.1, "maxGradNorm": 1.0}},
        {"compute": {"resources": {"cpu": "4"}}},
    ],
    ids=str,
)
def test_another_spelling_of_the_same_value_is_no_change(api: Api, changes: dict[str, Any]) -> None:
    assert api.create(api.job(FULL_SPEC)) == ""
    before = parse_spec(api.get()["spec"])
    assert api.patch({"spec": changes}) == ""
    assert parse_spec(api.get()["spec"]) == before


@pytest.mark.xfail(
    reason="the API server takes maps of unknown keys for equal when only a key was renamed",
    raises=AssertionError,
)
def test_a_renamed_key_of_the_raw_config_is_a_change(api: Api) -> None:
    assert api.create(api.job(FULL_SPEC)) == ""
    assert api.patch({"spec": {"deepspeed": {"config": {"a": None, "b": 1}}}}) != ""


def test_lifecycle_can_be_changed(api: Api) -> None:
    assert api.create(api.job()) == ""
    changes = {"suspend": True, "maxRestarts": 9, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0}
    assert api.patch({"spec": {"lifecycle": changes}}) == ""
    assert changes.items() <= api.get()["spec"]["lifecycle"].items()
    assert api.patch({"spec": {"lifecycle": {"activeDeadlineSeconds": None}}}) == ""
    assert "activeDeadlineSeconds" not in api.get()["spec"]["lifecycle"]


STATUS = FineTuneJobStatus(
    observed_generation=1,
    phase="Running",
    conditions=[
        Condition(
            type="Ready",
            status="True",
            reason="Training",
            message="Step 120 of 600.",
            last_transition_time="2026-01-02T03:04:05Z",
        )
    ],
    plan=PlanStatus(gpus=8, zero_stage=2, spec_hash="v1:00"),
    progress=ProgressStatus(
        step=120,
        total_steps=600,
        steps="120/600",
        loss=1.25,
        tokens_per_second=1000.5,
        estimated_completion_time="2026-01-02T04:00:00Z",
    ),
)


def test_a_dumped_status_is_stored_whole(api: Api) -> None:
    assert api.create(api.job()) == ""
    assert api.patch({"status": STATUS.dump()}, "--subresource=status") == ""
    assert api.get()["status"] == STATUS.dump()


def test_columns(api: Api) -> None:
    assert api.create(api.job()) == ""
    assert api.patch({"status": STATUS.dump()}, "--subresource=status") == ""
    header, row = api.print().splitlines()
    assert header.split() == ["NAME", "PHASE", "MODEL", "METHOD", "GPUS", "STEP", "LOSS", "ETA", "AGE"]
    assert row.split()[:-1] == [
        *("support-bot", "Running", "hf://org/model", "LoRA", "8", "120/600", "1.25"),
        "2026-01-02T04:00:00Z",
    ]
    header, row = api.print("-o", "wide").splitlines()
    assert header.split()[9:] == ["NODES", "TOKENS/S", "OUTPUT", "REASON"]
    assert row.split()[9:] == ["1", "1000.5", "pvc://adapters/bot", "Training"]


def test_jobs_can_be_selected_by_phase(api: Api) -> None:
    assert api.create(api.job()) == ""
    assert api.create(api.job(name="other")) == ""
    assert api.patch({"status": {"phase": "Running"}}, "--subresource=status") == ""
    names = api.print("--field-selector=status.phase=Running", "-o", "name").split()
    assert names == [f"finetunejob.{GROUP}/support-bot"]


def test_explain_reads_well(dev_cluster: DevCluster, crd: dict[str, Any]) -> None:
    def explain(path: str) -> str:
        version = f"--api-version={GROUP}/v1alpha1"
        return dev_cluster.kubectl("explain", version, f"finetunejobs.{path}").stdout

    dev_cluster.wait_for(
        lambda: "What to tune" in explain("spec"), 30, "the API server to publish the schema"
    )
    assert "FIELD: lora <Object>" in explain("spec.method.lora")
    assert "Rank of the adapter matrices." in explain("spec.method.lora")
    assert "ZeRO stage: what is split over the ranks." in explain("spec.deepspeed.zeroStage")


def test_tightened_rules_never_lock_a_job_in(api: Api, crd: dict[str, Any]) -> None:
    """A later release may judge harder; what is stored must still get its status, resume and go away."""
    job = api.job(merged(MINIMAL, {"model": {"source": "hf://org/old-habit"}}), name="a-rather-long-name")
    job["metadata"]["finalizers"] = [FINALIZER]
    assert api.create(job) == ""
    tightened = copy.deepcopy(crd)
    schema = tightened["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    [root] = schema["x-kubernetes-validations"]
    root["rule"] = root["rule"].replace("size() <= 43", "size() <= 5")
    source = schema["properties"]["spec"]["properties"]["model"]["properties"]["source"]
    source["x-kubernetes-validations"].append({"rule": "!self.contains('old')", "message": "no more"})
    install(api.cluster, tightened)
    try:
        api.cluster.wait_for(
            lambda: "metadata.name" in api.create(api.job(name="too-long"), "--dry-run=server"),
            30,
            "the tightened rule to hold",
        )
        name = "a-rather-long-name"
        assert api.patch({"status": STATUS.dump()}, "--subresource=status", name=name) == ""
        assert api.patch({"spec": {"lifecycle": {"suspend": True}}}, name=name) == ""
        assert api.patch({"metadata": {"finalizers": None}}, name=name) == ""
        api.cluster.kubectl("delete", "-n", api.namespace, f"finetunejobs.{GROUP}", name, "--timeout=20s")
    finally:
        install(api.cluster, crd)
