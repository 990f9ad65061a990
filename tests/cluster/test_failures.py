"""Failures that end a job: the reason has a name, the message says what to do, nothing runs afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hack.test_materials import make_tiny_model
from tests.cluster.rows import covers
from tests.cluster_support.admin import Object
from tests.cluster_support.tuning import START_SECONDS, Tuning, condition, rank_processes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LONG = {"maxSteps": 1_000_000, "schedule": {"type": "Constant"}}


def check_failed(tuning: Tuning, name: str, reason: str, *words: str) -> Object:
    """Wait until the job has Failed with ``reason``, by the same sentence everywhere; nothing of it runs."""
    status = tuning.wait_phase(name, "Failed")
    failed, ready = condition(status, "Failed"), condition(status, "Ready")
    assert failed["reason"] == reason, tuning.account(name)
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert condition(status, "Stalled")["status"] == "True"
    assert failed["message"] == ready["message"] == status["message"]
    for word in words:
        assert word in status["message"], status["message"]

    def is_at_rest() -> bool:
        job = tuning.job(name) or {"metadata": {}}
        live = [pod for pod in tuning.pods(name) if pod["status"]["phase"] in ("Pending", "Running")]
        return not live and not job["metadata"].get("finalizers")

    tuning.wait(name, is_at_rest, "nothing runs any more")
    return status


@covers("NaN loss", "NaNLoss", "Failed")
def test_a_loss_that_is_no_number(tuning: Tuning) -> None:
    """Weights that hold an infinity, as a broken conversion leaves them: headers look well, losses don't."""
    model = make_tiny_model(tuning.folder / "broken")
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][0, 0] = float("inf")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    tuning.start(model={"source": "pvc://work/broken"}, nodes=1)
    status = check_failed(tuning, "tune", "NaNLoss", "step 1", "learning rate")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["NaNLoss"], "the same would come again"


@covers("DeadAdapter")
def test_an_adapter_that_learned_nothing(tuning: Tuning) -> None:
    tuning.start(training={"learningRate": 1e-60, "maxSteps": 2}, nodes=1)
    check_failed(tuning, "tune", "DeadAdapter", "every B matrix is still zero", "learning rate")


@covers("out of memory", "OutOfMemory")
def test_a_rank_that_gets_no_memory(tuning: Tuning) -> None:
    """The kernel refuses the rank any more memory than it has: what allocators then say is real."""
    tuning.start(training=LONG, nodes=1, checkpoint={"everySteps": 20})
    tuning.wait_running("tune")
    (pid,) = rank_processes(tuning.workers("tune")[0])
    refuse_memory(pid)
    status = check_failed(tuning, "tune", "OutOfMemory", "memory", "micro")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["OutOfMemory"]


def refuse_memory(pid: int) -> None:
    """Limit the process to less than it has now, as its own user: root in a container may be kept from it."""
    owner = Path(f"/proc/{pid}").stat()
    limit = ["prlimit", f"--pid={pid}", "--as=1048576:1048576"]
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    subprocess.run(limit, check=True, **(as_owner if os.geteuid() == 0 else {}))


@pytest.fixture
def small_disk(tuning: Tuning) -> Iterator[Callable[[], None]]:
    """A claim ``small`` whose disk can be filled to the last byte at any time."""
    folder = tuning.folder.with_name(f"{tuning.namespace}-small")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a disk of a size of its own needs the right to mount: {done.stderr.strip()}")

    def fill() -> None:
        try:
            with (folder / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"\0" * 4096):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    try:
        tuning.claim("small", folder)
        yield fill
    finally:
        tuning.close()
        subprocess.run(["umount", str(folder)], check=True)


@covers("disk full", "DiskFull")
def test_a_disk_that_is_full(tuning: Tuning, small_disk: Callable[[], None]) -> None:
    tuning.start(
        training=LONG,
        nodes=1,
        workspace={"source": "pvc://small"},
        checkpoint={"everySteps": 100},
        lifecycle={"maxRestarts": 1},
    )
    tuning.wait_running("tune", checkpoint=True)
    small_disk()
    status = check_failed(tuning, "tune", "DiskFull", "full", "larger")
    assert {attempt["reason"] for attempt in status["attempts"]} == {"DiskFull"}
    assert status["attempts"][-1]["lastCheckpointStep"] >= 100, "what was saved before is kept"


@covers("DeadlineExceeded")
def test_a_job_that_takes_too_long(tuning: Tuning) -> None:
    tuning.start(training=LONG, nodes=1)
    tuning.wait("tune", lambda: tuning.workers("tune"), "a worker runs", START_SECONDS)
    tuning.change("tune", activeDeadlineSeconds=1)
    status = check_failed(tuning, "tune", "DeadlineExceeded", "activeDeadlineSeconds", "1 s after its start")
    assert status["attempts"][-1]["reason"] == "DeadlineExceeded"


@covers("Provisioning", "Unschedulable")
def test_a_job_that_no_node_can_take_says_so_and_goes_on_when_one_comes(tuning: Tuning) -> None:
    tuning.start(compute={"nodeSelector": {"pool": "none-yet"}}, nodes=1)
    status = tuning.wait_phase("tune", "Provisioning")
    assert condition(status, "NodesReady")["reason"] == "Unschedulable"
    assert "No node can take pod tune-a1-0" in status["message"]
    assert "nodeSelector" in status["message"]
    node = {"metadata": {"labels": {"pool": "none-yet"}}}
    api = tuning.installation.api
    api.call("PATCH", "/api/v1/nodes/worker-0", node, "application/merge-patch+json")
    try:
        tuning.wait("tune", lambda: tuning.workers("tune"), "its pod runs", START_SECONDS)
    finally:
        node["metadata"]["labels"]["pool"] = "workers"
        api.call("PATCH", "/api/v1/nodes/worker-0", node, "application/merge-patch+json")


@covers("ImagePullFailed")
def test_an_image_that_does_not_exist(tuning: Tuning) -> None:
    tuning.start(podTemplate={"image": "registry.invalid/trainer:1"}, nodes=1)

    def says() -> bool:
        return condition(tuning.status("tune"), "Ready").get("reason") == "ImagePullFailed"

    tuning.wait("tune", says, "the image is named")
    assert "registry.invalid/trainer:1" in tuning.status("tune")["message"]
    assert tuning.phase("tune") == "Preparing"


@covers("Exporting", "Succeeded")
def test_a_finished_job_goes_away_after_its_time_to_live(tuning: Tuning) -> None:
    tuning.start(training={"maxSteps": 2}, nodes=1, lifecycle={"ttlSecondsAfterFinished": 2})

    def has_succeeded_or_gone() -> bool:
        job = tuning.job("tune")
        return job is None or job.get("status", {}).get("phase") == "Succeeded"

    tuning.wait("tune", has_succeeded_or_gone, "the job has succeeded", START_SECONDS)
    tuning.wait("tune", lambda: tuning.job("tune") is None, "the job is gone", 60)
    assert (tuning.folder / "out" / "tune" / "adapter_model.safetensors").is_file()
    tuning.wait("tune", lambda: not tuning.pods("tune"), "its pods are gone", 60)


@covers("PlanDoesNotFit")
def test_a_model_that_fits_no_device_is_refused_before_any_worker(tuning: Tuning) -> None:
    api = tuning.installation.api
    labels = {"metadata": {"labels": {"nvidia.com/gpu.memory": "1"}}}
    api.call("PATCH", "/api/v1/nodes/gpu-0", labels, "application/merge-patch+json")
    try:
        gpus = {"gpusPerNode": 1, "processesPerNode": None, "nodeSelector": {"pool": "gpus"}}
        tuning.start(compute=gpus, nodes=1, deepspeed={"zeroStage": None})
        check_failed(tuning, "tune", "PlanDoesNotFit")
    finally:
        labels = {"metadata": {"labels": {"nvidia.com/gpu.memory": None}}}  # type: ignore[dict-item]
        api.call("PATCH", "/api/v1/nodes/gpu-0", labels, "application/merge-patch+json")
    assert tuning.workers_ever("tune") == set()


@covers("PrepareRetrying", "UploadRetrying")
def test_volumes_that_take_nothing_are_tried_again_and_no_result_is_lost(tuning: Tuning) -> None:
    """Rule 3 of the API: export is a phase of its own, retried alone, and so is prepare."""
    folders = {name: tuning.folder.with_name(f"{tuning.namespace}-{name}") for name in ("scratch", "shelf")}
    for name, folder in folders.items():
        tuning.claim(name, folder)
        folder.chmod(0o555)
    tuning.start(
        training={"maxSteps": 2},
        nodes=1,
        workspace={"source": "pvc://scratch/tuning"},
        output={"destination": "pvc://shelf/tune"},
    )
    for reason, phase, name in (
        ("PrepareRetrying", "Preparing", "scratch"),
        ("UploadRetrying", "Exporting", "shelf"),
    ):
        tuning.wait("tune", partial(_says, tuning, reason), f"{reason} is told", START_SECONDS)
        status = tuning.status("tune")
        assert status["phase"] == phase
        assert "Access was refused" in status["message"], status["message"]
        folders[name].chmod(0o777)
    status = tuning.wait_phase("tune", "Succeeded")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Completed"], "trained once"
    assert (folders["shelf"] / "tune" / "adapter_model.safetensors").is_file()


def _says(tuning: Tuning, reason: str) -> bool:
    return condition(tuning.status("tune"), "Ready").get("reason") == reason
