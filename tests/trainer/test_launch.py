"""Pods of real gangs that are stopped, killed or left hanging: what they save, exit with and say."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.trainer.gang_rig import Pod, Site, free_port, run, started
from tunewright_trainer.contract import ExitCode, Failure, ProgressPost, Reason
from tunewright_trainer.train.launch import Settings
from tunewright_trainer.train.rendezvous import Rendezvous

pytestmark = pytest.mark.trainer

STEPS = 40
LONG: dict[str, Any] = {
    "training": {
        "max_steps": STEPS,
        "global_batch": 16,
        "micro_batch": 1,
        "gradient_accumulation": 8,
        "evaluation": {"every_steps": 15, "every_epochs": None},
    },
    "checkpoint": {"every_steps": 5, "every_minutes": None, "keep": 2},
}
"""Long enough to be interrupted in its middle; eight chances in each step to stop between two passes."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"), rows=150)


class Listener:
    """An operator's progress endpoint that keeps what it gets."""

    def __init__(self) -> None:
        self.posts: list[ProgressPost] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.posts.append(ProgressPost.model_validate_json(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/status"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    made = Listener()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(scope="module")
def undisturbed(site: Site, listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The long job, run in two pods and never interrupted: what all interrupted ones have to end like."""
    environment = {"KUBEFLOW_TRAINER_SERVER_URL": listener.url, "TUNEWRIGHT_PROGRESS_SECONDS": "0.01"}
    config = site.config("undisturbed", compute={"nodes": 2, "processes_per_node": 1}, **LONG)
    folder = tmp_path_factory.mktemp("undisturbed")
    with started(site, config, folder, nodes=2, environment=environment) as pods:
        codes = [pod.wait() for pod in pods]
        assert codes == [ExitCode.OK, ExitCode.OK], pods[0].text() + pods[1].text()
        assert {pod.answer().rank for pod in pods} == {0, 1}
    return site


def saved_steps(site: Site, uid: str) -> list[int]:
    return [int(name.split("-")[1]) for name in site.checkpoints(uid) if not name.startswith(".")]


def assert_ends_like_undisturbed(site: Site, uid: str, resumed: Pod) -> None:
    assert resumed.ended == [ExitCode.OK], resumed.text()
    expected, found = site.metrics("undisturbed")["curve"], site.metrics(uid)["curve"]
    assert found["loss"] == expected["loss"]
    assert found["eval_loss"] == expected["eval_loss"]
    assert site.adapter(uid) == site.adapter("undisturbed")


def test_progress_is_posted_to_the_end(undisturbed: Site, listener: Listener) -> None:
    ours = [post.trainer_status.tunewright for post in listener.posts]
    steps = [own.step for own in ours if own is not None and own.step is not None]
    assert steps == sorted(steps)
    assert steps[-1] == STEPS
    last = listener.posts[-1].trainer_status
    assert last.progress_percentage == 100
    assert last.estimated_remaining_seconds == 0
    assert last.tunewright is not None
    assert last.tunewright.last_checkpoint_step == STEPS
    assert last.tunewright.eval_loss == undisturbed.metrics("undisturbed")["eval_loss"]
    assert (last.tunewright.tokens_per_second or 0) > 0


def test_a_pod_that_gets_sigterm_saves_on_all_ranks_and_costs_at_most_one_step(
    undisturbed: Site, tmp_path: Path
) -> None:
    site, uid = undisturbed, "evicted"
    config = site.config(uid, compute={"nodes": 2, "processes_per_node": 1}, **LONG)
    with started(site, config, tmp_path, nodes=2) as pods:
        pods[0].wait_for(lambda: f"step 7/{STEPS}" in pods[0].text(), "step after the first checkpoint")
        pods[1].terminate()
        codes = [pod.wait() for pod in pods]
        assert codes == [ExitCode.STOPPED_FOR_PEER, ExitCode.TERMINATED], pods[0].text() + pods[1].text()
        answers = [pod.answer() for pod in pods]
    assert [answer.reason for answer in answers] == [Reason.STOPPED_FOR_PEER, Reason.PREEMPTED]
    stopped_at = answers[0].step
    assert 7 <= stopped_at < STEPS
    assert [answer.step for answer in answers] == [stopped_at] * 2
    assert [answer.last_checkpoint_step for answer in answers] == [stopped_at] * 2
    assert saved_steps(site, uid)[-1] == stopped_at
    resumed = run(site, site.config(uid, **LONG), tmp_path, attempt=2)
    assert resumed.answer().resumed_from_step == stopped_at
    assert_ends_like_undisturbed(site, uid, resumed)


def test_one_rank_that_gets_sigterm_stops_all_of_them(undisturbed: Site, tmp_path: Path) -> None:
    site, uid = undisturbed, "one-rank"
    config = site.config(uid, **LONG)
    with started(site, config, tmp_path) as [pod]:
        pod.wait_for(lambda: f"step 8/{STEPS}" in pod.text(), "step after the first checkpoint")
        os.kill(pod.rank_pids()[1], signal.SIGTERM)
        assert pod.wait() == ExitCode.TERMINATED, pod.text()
        answer = pod.answer()
    assert (answer.reason, answer.rank) == (Reason.PREEMPTED, 1)
    assert saved_steps(site, uid)[-1] == answer.step == answer.last_checkpoint_step
    assert_ends_like_undisturbed(site, uid, run(site, config, tmp_path, attempt=2))


def test_a_killed_rank_is_named_and_training_goes_on_from_the_last_checkpoint(
    undisturbed: Site, tmp_path: Path
) -> None:
    site, uid = undisturbed, "killed"
    config = site.config(uid, **LONG)
    with started(site, config, tmp_path) as [pod]:
        pod.wait_for(lambda: saved_steps(site, uid) != [], "first checkpoint")
        os.kill(pod.rank_pids()[1], signal.SIGKILL)
        assert pod.wait() == ExitCode.KILLED, pod.text()
        answer = pod.answer()
    assert (answer.reason, answer.rank) == (Reason.RANK_FAILED, 1)
    assert "signal 9" in answer.message
    victim = (site.job(uid) / "logs" / "attempt-1" / "rank-0.log").read_text()
    assert Reason.RANK_LOST.value in victim
    resumed = run(site, config, tmp_path, attempt=2)
    assert resumed.answer().resumed_from_step % 5 == 0
    assert_ends_like_undisturbed(site, uid, resumed)


def test_the_pod_of_a_killed_peer_is_a_victim(site: Site, tmp_path: Path) -> None:
    config = site.config("peer-killed", compute={"nodes": 2, "processes_per_node": 1}, **LONG)
    with started(site, config, tmp_path, nodes=2) as pods:
        pods[0].wait_for(lambda: saved_steps(site, "peer-killed") != [], "first checkpoint")
        for pid in pods[1].rank_pids().values():
            os.kill(pid, signal.SIGKILL)
        assert [pod.wait() for pod in pods] == [ExitCode.RANK_LOST, ExitCode.KILLED], pods[0].text()
        assert [pod.answer().reason for pod in pods] == [Reason.RANK_LOST, Reason.RANK_FAILED]


def test_sigterm_before_the_first_step_ends_the_pod_with_nothing_to_save(site: Site, tmp_path: Path) -> None:
    with started(site, site.config("early", **LONG), tmp_path) as [pod]:
        pod.wait_for(lambda: len(pod.rank_pids()) == 2, "ranks")
        pod.terminate()
        assert pod.wait() == ExitCode.TERMINATED, pod.text()
        assert pod.answer().reason == Reason.PREEMPTED
        assert pod.answer().last_checkpoint_step is None
    assert site.checkpoints("early") == []


def test_no_rank_outlives_an_entrypoint_that_is_killed(site: Site, tmp_path: Path) -> None:
    with started(site, site.config("orphans", **LONG), tmp_path) as [pod]:
        pod.wait_for(lambda: len(pod.rank_pids()) == 2, "ranks")
        ranks = [psutil.Process(pid) for pid in pod.rank_pids().values()]
        pod.process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=20)
        assert alive == []


def test_sigterm_while_waiting_for_the_gang_ends_the_pod(site: Site, tmp_path: Path) -> None:
    config = site.config("lonely", compute={"nodes": 2, "processes_per_node": 1})
    nobody = {"PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}", "JOB_COMPLETION_INDEX": "1", "PET_NNODES": "2"}
    with started(site, config, tmp_path, environment=nobody) as [pod]:
        pod.wait_for(lambda: "waiting for index 0" in pod.text(), "waiting")
        pod.terminate()
        assert pod.wait(10) == ExitCode.TERMINATED
        assert pod.answer().reason == Reason.PREEMPTED


def test_a_gang_that_does_not_come_together_in_time_says_whom_it_waited_for(
    site: Site, tmp_path: Path
) -> None:
    config = site.config("alone", compute={"nodes": 2, "processes_per_node": 1})
    nobody = {
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}",
        "JOB_COMPLETION_INDEX": "1",
        "PET_NNODES": "2",
        "TUNEWRIGHT_JOIN_TIMEOUT_SECONDS": "1",
    }
    pod = run(site, config, tmp_path, environment=nobody)
    assert pod.ended == [ExitCode.RANK_LOST]
    assert "Index 0 of the gang did not answer" in pod.answer().message


@pytest.mark.slow
def test_a_hanging_rank_is_given_up_and_its_peer_is_not_kept_waiting(site: Site, tmp_path: Path) -> None:
    hurry = {"TUNEWRIGHT_COLLECTIVE_TIMEOUT_SECONDS": "5", "TUNEWRIGHT_AFTERMATH_SECONDS": "1"}
    with started(site, site.config("hanging", **LONG), tmp_path, environment=hurry) as [pod]:
        pod.wait_for(lambda: saved_steps(site, "hanging") != [], "first checkpoint")
        hung = pod.rank_pids()[1]
        os.kill(hung, signal.SIGSTOP)
        code = pod.wait(180)
        answer = pod.answer()
    assert isinstance(answer, Failure)
    assert code == ExitCode.RANK_LOST, pod.text()
    assert (answer.reason, answer.rank) == (Reason.RANK_LOST, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


def test_minutes_are_told_by_rank_0_and_saved_by_all(site: Site, tmp_path: Path) -> None:
    changes = {**LONG, "checkpoint": {"every_steps": None, "every_minutes": 0.005, "keep": 50}}
    pod = run(site, site.config("by-the-clock", **changes), tmp_path)
    assert pod.ended == [ExitCode.OK], pod.text()
    steps = saved_steps(site, "by-the-clock")
    assert len(steps) > 1
    assert steps[-1] == STEPS
    shutil.rmtree(site.job("by-the-clock"))


def test_a_pod_reads_its_place_from_the_environment(site: Site) -> None:
    environment = {
        "PET_NNODES": "3",
        "PET_NPROC_PER_NODE": "8",
        "PET_RDZV_ID": "uid-a1",
        "PET_RDZV_ENDPOINT": "job-a1-0.job.ns.svc:29512",
        "PET_LOCAL_ADDR": "job-a1-2.job.ns.svc",
        "JOB_COMPLETION_INDEX": "2",
    }
    place = Rendezvous.from_environment(environment, site.config("x").compute)
    arguments = place.torchrun_arguments(
        join_timeout_seconds=1800, shutdown_timeout_seconds=280, log_folder=Path("logs")
    )
    assert (place.host, place.port, place.is_host) == ("job-a1-0.job.ns.svc", 29512, False)
    assert "--rdzv-conf=is_host=false,join_timeout=1800,read_timeout=120" in arguments
    assert {"--nnodes=3", "--nproc-per-node=8", "--max-restarts=0", "--shutdown-timeout=280"} <= set(
        arguments
    )
    assert "--local-addr=job-a1-2.job.ns.svc" in arguments


@pytest.mark.parametrize(("grace_seconds", "expected"), [("300", 280), ("30", 22), ("1", 1)])
def test_ranks_may_save_for_most_of_the_grace_period(grace_seconds: str, expected: int) -> None:
    settings = Settings.from_environment({"TUNEWRIGHT_GRACE_SECONDS": grace_seconds})
    assert settings.shutdown_timeout_seconds == expected


def test_rank_logs_hold_how_each_rank_ended(undisturbed: Site) -> None:
    log = (undisturbed.job("undisturbed") / "logs" / "attempt-1" / "rank-0.log").read_text()
    first = log.splitlines()[0]
    assert "ended with 0" in first
    assert json.loads(first.partition(": ")[2])["step"] == STEPS
    assert f"step {STEPS}/{STEPS}" in log
