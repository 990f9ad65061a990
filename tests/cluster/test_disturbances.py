"""What happens to ranks, pods and nodes of a training: a named reason, and it goes on from the checkpoint."""

from __future__ import annotations

import signal

import pytest

from hack.devcluster.cluster import NodeSpec
from tests.cluster.rows import covers
from tests.cluster_support.admin import Object
from tests.cluster_support.installation import POOL
from tests.cluster_support.long_job import NAME, LongJob, counts
from tests.cluster_support.tuning import START_SECONDS, condition, rank_processes, send

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def told_as(long_job: LongJob, end: Object, reason: str) -> None:
    """The reason stands in the attempt, in the timeline and in an event, with a sentence."""
    assert end["reason"] == reason, end
    assert end["message"]
    timeline = long_job.status()["timeline"]
    assert any(entry["phase"] == "Restarting" and entry["reason"] == reason for entry in timeline)

    def is_told() -> bool:
        return any(
            event["reason"] == reason and event["type"] == "Warning" for event in long_job.tuning.events(NAME)
        )

    long_job.tuning.wait(NAME, is_told, f"a warning {reason}", 30)


@covers("rank killed", "RankFailed", "Restarting")
def test_a_killed_rank_restarts_the_gang(long_job: LongJob) -> None:
    before = long_job.running()
    send(rank_processes(long_job.workers()[1]), signal.SIGKILL)
    end, after = long_job.restarted(before)
    told_as(long_job, end, "RankFailed")
    assert "died with signal 9" in end["message"]
    assert end["rank"] in (0, 1)
    software, infrastructure = counts(before)
    assert counts(after) == (software + 1, infrastructure)


@covers("pod deleted by hand", "PodDeleted")
def test_a_pod_deleted_by_hand_costs_a_step_at_most(long_job: LongJob) -> None:
    before = long_job.running()
    name = long_job.workers()[0]["metadata"]["name"]
    long_job.tuning.installation.api.delete("pods", long_job.tuning.namespace, name)
    end, after = long_job.restarted(before)
    told_as(long_job, end, "PodDeleted")
    assert name in end["message"]
    software, infrastructure = counts(before)
    assert counts(after) == (software, infrastructure + 1)
    # It was saved on SIGTERM: nothing of what was shown is done again.
    assert after["attempts"][-1]["resumedFromStep"] >= before["progress"]["step"]


@covers("Preempted")
def test_an_eviction_costs_a_step_at_most(long_job: LongJob) -> None:
    before = long_job.running()
    name, namespace = long_job.workers()[1]["metadata"]["name"], long_job.tuning.namespace
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    long_job.tuning.installation.api.call("POST", path, eviction)
    end, after = long_job.restarted(before)
    told_as(long_job, end, "Preempted")
    software, infrastructure = counts(before)
    assert counts(after) == (software, infrastructure + 1)
    assert after["attempts"][-1]["resumedFromStep"] >= before["progress"]["step"]


@covers("rank hangs", "ProgressStalled")
def test_a_rank_that_hangs_is_noticed_and_replaced(long_job: LongJob) -> None:
    before = long_job.running()
    pods = long_job.workers()
    send(rank_processes(pods[1]), signal.SIGSTOP)
    long_job.tuning.change(NAME, progressDeadlineSeconds=5)
    try:
        end = long_job.ended(before["attempts"][-1]["number"])
    finally:
        long_job.tuning.change(NAME, progressDeadlineSeconds=1800)
    after = long_job.restarted(before)[1]
    told_as(long_job, end, "ProgressStalled")
    assert "for 5 s" in end["message"]
    assert "progressDeadlineSeconds" in end["message"]
    software, infrastructure = counts(before)
    assert counts(after) == (software + 1, infrastructure)


@pytest.mark.parametrize("way", ["silent", "deleted"])
@covers("node gone", "NodeLost")
def test_a_node_that_is_gone_costs_what_is_after_the_checkpoint(long_job: LongJob, way: str) -> None:
    before = long_job.running()
    cluster = long_job.tuning.installation.cluster
    node = long_job.workers()[0]["spec"]["nodeName"]
    if way == "silent":
        cluster.stop_node(node)
    else:
        cluster.delete_node(node)
    try:
        end, after = long_job.restarted(before)
        told_as(long_job, end, "NodeLost")
        assert node in end["message"]
        assert node not in {pod["spec"]["nodeName"] for pod in long_job.workers()}
        software, infrastructure = counts(before)
        assert counts(after) == (software, infrastructure + 1)
    finally:
        cluster.add_node(NodeSpec(node, labels=POOL, backoff_seconds=0.5))


@covers("Suspended", "Running", "Starting")
def test_suspend_frees_the_pods_and_resume_goes_on_where_it_stopped(long_job: LongJob) -> None:
    before = long_job.running()
    number = before["attempts"][-1]["number"]
    tuning = long_job.tuning
    tuning.change(NAME, suspend=True)

    def is_at_rest() -> bool:
        status = tuning.status(NAME)
        return "no pod runs" in status.get("message", "") and not tuning.workers(NAME)

    tuning.wait(NAME, is_at_rest, "the pods have stopped", START_SECONDS)
    status = tuning.status(NAME)
    assert status["phase"] == "Suspended"
    assert condition(status, "NodesReady")["status"] == "False"
    assert "Reconciling" not in {each["type"] for each in status["conditions"]}
    end = status["attempts"][-1]
    assert (end["number"], end["reason"]) == (number, "Suspended")
    assert [pod for pod in tuning.pods(NAME, "train", number) if pod["status"]["phase"] == "Running"] == []

    tuning.change(NAME, suspend=False)
    after = tuning.wait_running(NAME, number + 1)
    assert after["attempts"][-1]["resumedFromStep"] >= before["progress"]["step"]
    assert counts(after) == counts(before), "a suspension is nobody's failure"


@covers("Terminating", "Deleting")
def test_deleting_a_running_job_leaves_no_pod(long_job: LongJob) -> None:
    long_job.running()
    tuning = long_job.tuning
    ranks = [pid for pod in long_job.workers() for pid in rank_processes(pod)]
    api = tuning.installation.api
    api.delete("finetunejobs", tuning.namespace, NAME)
    tuning.wait(NAME, lambda: tuning.phase(NAME) == "Terminating" or tuning.job(NAME) is None, "it ends", 30)
    tuning.delete(NAME)
    assert len(ranks) == 2
    assert not any(is_alive(pid) for pid in ranks)
    tuning.wait(NAME, lambda: not tuning.pods(NAME), "the garbage collector is done", 30)
    assert api.list("jobs", tuning.namespace) == []
    checkpoints = list((tuning.folder / "out").glob("long/.tunewright/jobs/*/checkpoints/*"))
    assert checkpoints, "deleting stops pods; what they wrote is the claim's"


def is_alive(pid: int) -> bool:
    from hack.devcluster.state import process_start_ticks

    return process_start_ticks(pid) is not None
