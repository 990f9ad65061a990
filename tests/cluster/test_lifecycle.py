"""From apply to Succeeded, as people see it: the output, every field of the status, columns, events."""

from __future__ import annotations

import hashlib
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.cluster.rows import covers
from tests.cluster_support.tuning import SHORT_SECONDS, Tuning, condition
from tunewright.core import names
from tunewright.core.observe import parse_time

pytestmark = [
    pytest.mark.cluster,
    # peft 0.21 still asks transformers under an old name; no use of ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

STEPS = 60
TRAINING = {"maxSteps": STEPS, "evaluation": {"everySteps": 20}}


@pytest.fixture(scope="module")
def finished(shared_tuning: Tuning) -> Tuning:
    """A namespace in which the job ``tune`` has succeeded."""
    shared_tuning.start(dataset={"validationFraction": 0.1}, training=TRAINING)
    shared_tuning.wait_phase("tune", "Succeeded")
    return shared_tuning


def test_the_adapter_on_the_claim_is_a_trained_one(finished: Tuning) -> None:
    folder = finished.folder / "out" / "tune"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    weights = load_file(folder / "adapter_model.safetensors")
    # peft starts with every B at zero: an adapter of zeros was never trained.
    trained = {name: tensor for name, tensor in weights.items() if "lora_B" in name}
    assert trained
    assert all(torch.count_nonzero(tensor) for tensor in trained.values())


def test_the_adapter_loads_in_peft_and_answers_otherwise_than_its_base(finished: Tuning) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.folder / "out" / "tune"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Who may build a house?", return_tensors="pt").input_ids
    base = AutoModelForCausalLM.from_pretrained(finished.folder / "model")
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, str(folder))(ids).logits
    assert not torch.allclose(before, after, atol=1e-3)


def test_the_digest_in_status_is_that_of_the_files(finished: Tuning) -> None:
    (output,) = finished.status("tune")["outputs"]
    folder = finished.folder / "out" / "tune"
    manifest = json.loads((folder / "tunewright.json").read_text())
    for file in manifest["files"]:
        content = (folder / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"].removeprefix("sha256:"), file["path"]
    assert output["sizeBytes"] == sum(file["size_bytes"] for file in manifest["files"])
    assert re.fullmatch("sha256:[0-9a-f]{64}", output["digest"])
    assert output["uri"] == output["destination"] == "pvc://work/out/tune"


def test_the_status_tells_what_was_planned_read_and_measured(finished: Tuning) -> None:
    status = finished.status("tune")
    assert status["plan"]["zeroStage"] == 2
    assert status["plan"]["worldSize"] == 2
    assert status["plan"]["trainerImage"] == "tunewright/trainer:0.1.0"
    assert status["data"]["rows"] + status["data"]["validationRows"] == 40
    assert 0 < status["data"]["lossTokens"] < status["data"]["tokens"]
    assert status["model"]["architecture"] == "LlamaForCausalLM"
    progress = status["progress"]
    assert (progress["steps"], progress["percent"], progress["lastCheckpointStep"]) == (
        f"{STEPS}/{STEPS}",
        100,
        STEPS,
    )
    measured = status["measured"]
    assert measured["trainableParameters"] == status["model"]["trainableParameters"]
    assert measured["totalParameters"] == status["model"]["parameters"] + measured["trainableParameters"]
    assert measured["peakMemoryBytes"] > 100e6
    assert 0 < measured["trainSeconds"] < SHORT_SECONDS
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Completed"]


def test_two_workers_of_one_job_did_it(finished: Tuning) -> None:
    """Holds what other tests rely on, to show that no worker was ever made, to what was made here."""
    job, *pods = sorted(finished.workers_ever("tune"))
    assert job == "tune-a1"
    assert [pod.rpartition("-")[0] for pod in pods] == ["tune-a1-0", "tune-a1-1"]


def test_training_lowered_both_losses_and_the_curve_shows_it(finished: Tuning) -> None:
    status = finished.status("tune")
    curve = status["curve"]
    assert curve["steps"] == sorted(set(curve["steps"]))
    assert (curve["steps"][-1], curve["evalSteps"][-1]) == (STEPS, STEPS)
    assert len(curve["loss"]) == len(curve["steps"]) >= 2
    # A random model's first guess is uniform over its 1,024 tokens.
    assert status["measured"]["finalLoss"] < math.log(1024) - 0.05
    assert status["measured"]["finalEvalLoss"] < math.log(1024) - 0.05


def test_the_timeline_is_the_life_in_order(finished: Tuning) -> None:
    status = finished.status("tune")
    told = [entry["phase"] for entry in status["timeline"]]
    phases = [phase for phase, before in zip(told, [None, *told], strict=False) if phase != before]
    assert phases == ["Preparing", "Starting", "Running", "Exporting", "Succeeded"]
    times = [parse_time(entry["time"]) for entry in status["timeline"]]
    assert times == sorted(times, key=str)
    assert status["completedAt"] == status["timeline"][-1]["time"]


def test_conditions_at_the_end_are_those_that_tools_wait_for(finished: Tuning) -> None:
    status = finished.status("tune")
    said = {each["type"]: each["status"] for each in status["conditions"]}
    assert said == {
        "Accepted": "True",
        "DataReady": "True",
        "NodesReady": "False",
        "Running": "False",
        "Checkpointed": "True",
        "Succeeded": "True",
        "Ready": "True",
    }
    assert condition(status, "Ready")["observedGeneration"] == status["observedGeneration"] == 1


def test_kubectl_get_shows_the_job_in_a_line(finished: Tuning) -> None:
    cluster = finished.installation.cluster
    header, line = cluster.kubectl("get", "ftj", "-n", finished.namespace).stdout.splitlines()
    assert header.split()[:2] == ["NAME", "PHASE"]
    for word in ("tune", "Succeeded", "pvc://work/model", "LoRA", f"{STEPS}/{STEPS}"):
        assert word in line.split()
    wide = cluster.kubectl("get", "ftj", "-n", finished.namespace, "-o", "wide").stdout
    assert "pvc://work/out/tune" in wide


def test_events_tell_the_same_story(finished: Tuning) -> None:
    def reasons() -> set[str]:
        return {event["reason"] for event in finished.events("tune")}

    expected = {"Preparing", "Starting", "Training", "Exporting", "Succeeded"}
    finished.wait("tune", lambda: expected <= reasons(), f"events {expected}", 20)
    assert all(event["type"] == "Normal" for event in finished.events("tune"))
    assert all(
        event["reportingController"] == names.REPORTING_CONTROLLER for event in finished.events("tune")
    )


def test_nothing_of_a_finished_job_runs_and_its_finalizer_is_gone(finished: Tuning) -> None:
    finished.wait(
        "tune", lambda: not (finished.job("tune") or {})["metadata"].get("finalizers"), "let go", 20
    )
    assert {pod["status"]["phase"] for pod in finished.pods("tune")} == {"Succeeded"}


@covers("DestinationOccupied")
def test_a_job_with_another_spec_leaves_that_output_alone(finished: Tuning) -> None:
    """Rule 4 of the API: nothing of another job is overwritten, and it is said before any worker starts."""
    before = (finished.folder / "out" / "tune" / "tunewright.json").read_bytes()
    output = {"destination": "pvc://work/out/tune"}
    finished.start("other", training={"learningRate": 0.02}, output=output)
    status = finished.wait_phase("other", "Failed")
    assert condition(status, "Failed")["reason"] == "DestinationOccupied", status["message"]
    assert "pvc://work/out/tune" in status["message"]
    assert finished.workers_ever("other") == set()
    assert (finished.folder / "out" / "tune" / "tunewright.json").read_bytes() == before


@pytest.mark.slow
def test_the_same_job_made_again_keeps_the_output_that_is_there(finished: Tuning) -> None:
    """Rule 4 of the API, the other half. The second job trains, and then adopts what the first one wrote."""
    digest = finished.status("tune")["outputs"][0]["digest"]
    finished.delete("tune")
    assert (finished.folder / "out" / "tune" / "tunewright.json").is_file(), "deleting a job keeps its output"
    finished.start(dataset={"validationFraction": 0.1}, training=TRAINING)
    status = finished.wait_phase("tune", "Succeeded")
    (output,) = status["outputs"]
    assert (output["digest"], output["adopted"]) == (digest, True)
