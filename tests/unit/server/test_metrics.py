"""Metrics tell what the queue, the caches and the trainers say, with a bounded number of series."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.cluster.api_server import client_of, serving, until
from tunewright.cluster.caches import Caches, JobKey
from tunewright.cluster.resources import FINETUNEJOBS
from tunewright.cluster.workqueue import WorkQueue
from tunewright.core import names
from tunewright.core.progress import ProgressBook
from tunewright.server import metrics as module
from tunewright.server.health import Health
from tunewright.server.intake import ProgressIntake
from tunewright.server.metrics import LoopWatchdog, Metrics
from tunewright_trainer.contract import ProgressPost


def job(name: str, version: int = 1, phase: str = "Running") -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"kind": names.KIND, "metadata": metadata, "status": {"phase": phase}}


def post(step: int, **more: float) -> ProgressPost:
    ours = {"step": step, "loss": 1.5, **more}
    return ProgressPost.model_validate({"trainerStatus": {"progressPercentage": 10, "tunewright": ours}})


class Scene:
    """Metrics over a queue, caches and a book that nothing feeds but the test."""

    def __init__(self, caches: Caches) -> None:
        self.caches = caches
        self.queue: WorkQueue[JobKey] = WorkQueue()
        self.book = ProgressBook()
        self.clock = 0.0
        self.due: list[tuple[JobKey, float]] = []
        self.intake = ProgressIntake(
            self.book, caches, lambda key, seconds: self.due.append((key, seconds)), 30.0, lambda: self.clock
        )
        self.metrics = Metrics()
        self.metrics.watch_state(self.queue, caches, self.book, lambda: True)

    async def scrape(self) -> dict[tuple[str, ...], float]:
        """Values by name and label values, in the order of the labels' names, as they are served."""
        application = web.Application()
        application.router.add_get("/metrics", self.metrics.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
            assert response.headers["Content-Type"].startswith("text/plain; version=")
        await runner.cleanup()
        families = text_string_to_metric_families(text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def on(scenario: Any) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            await scenario(Scene(Caches(client, lambda key: None)))

    asyncio.run(main())


def test_queue_and_phases() -> None:
    async def scenario(s: Scene) -> None:
        for name, phase in [("a", "Running"), ("b", "Running"), ("c", "Failed")]:
            s.caches.seen(FINETUNEJOBS, job(name, phase=phase))
            s.queue.add(("ns", name))
        s.queue.add_after(("ns", "d"), 60)
        await s.queue.get()
        s.queue.retry(("ns", "e"))
        values = await s.scrape()
        assert values["tunewright_jobs", "Running"] == 2
        assert values["tunewright_jobs", "Failed"] == 1
        assert values["tunewright_workqueue_depth",] == 2
        assert values["tunewright_workqueue_delayed",] == 2
        assert values["tunewright_workqueue_adds_total",] == 3
        assert values["tunewright_workqueue_retries_total",] == 1
        assert values["tunewright_workqueue_longest_running_seconds",] > 0
        assert values["tunewright_leader",] == 1
        assert values["tunewright_informer_objects", "finetunejobs"] == 3
        assert not any(name.endswith("_created") for name, *_ in values)
        s.queue.close()

    on(scenario)


def test_requests_by_verb_resource_and_code() -> None:
    async def scenario(s: Scene) -> None:
        for code in ("200", "200", "503"):
            s.metrics.observe_request("get", "pods", code, 0.2)
        values = await s.scrape()
        assert values["tunewright_api_requests_total", "200", "pods", "get"] == 2
        assert values["tunewright_api_requests_total", "503", "pods", "get"] == 1
        assert values["tunewright_api_request_seconds_sum", "get"] == pytest.approx(0.6)

    on(scenario)


def test_progress_is_shown_while_a_job_trains_and_gone_afterwards() -> None:
    async def scenario(s: Scene) -> None:
        s.caches.seen(FINETUNEJOBS, job("a"))
        s.intake.record("ns", "a", "pod-1", post(7, learning_rate=1e-4))
        values = await s.scrape()
        assert values["tunewright_training_step", "a", "ns"] == 7
        assert values["tunewright_training_loss", "a", "ns"] == 1.5
        assert values["tunewright_training_learning_rate", "a", "ns"] == 1e-4
        assert values["tunewright_training_percent", "a", "ns"] == 10
        assert ("tunewright_training_epoch", "a", "ns") not in values
        s.caches.seen(FINETUNEJOBS, job("a", 2, "Succeeded"))
        assert not [key for key in await s.scrape() if "a" in key]

    on(scenario)


def test_series_of_jobs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_JOBS_WITH_PROGRESS", 3)

    async def scenario(s: Scene) -> None:
        for index in range(5):
            s.caches.seen(FINETUNEJOBS, job(str(index)))
            s.intake.record("ns", str(index), "pod", post(1))
        values = await s.scrape()
        assert len([key for key in values if key[0] == "tunewright_training_step"]) == 3
        assert values["tunewright_progress_jobs_omitted",] == 2

    on(scenario)


def test_progress_asks_for_a_status_write_at_most_so_often() -> None:
    async def scenario(s: Scene) -> None:
        key = ("ns", "a")
        s.caches.seen(FINETUNEJOBS, job("a"))
        for s.clock in (0.0, 5.0, 20.0, 31.0):
            s.intake.record("ns", "a", "pod", post(int(s.clock) + 1))
        assert s.due == [(key, 0.0), (key, 25.0), (key, 10.0), (key, 0.0)]
        s.intake.record("ns", "unknown", "pod", post(1))
        assert len(s.due) == 4
        s.intake.forget("uid-a")
        assert s.book.report("uid-a") is None

    on(scenario)


def test_the_loop_watchdog_sees_what_blocks_the_loop() -> None:
    async def scenario(s: Scene) -> None:
        lags: list[float] = []
        watchdog = LoopWatchdog(lags.append)
        watching = asyncio.create_task(watchdog.run())
        await until(lambda: len(lags) >= 1)
        time.sleep(0.6)  # noqa: ASYNC251 - the fault itself: a blocking call in the loop
        assert watchdog.lag_seconds() > 0.2
        await until(lambda: max(lags) > 0.2)
        watching.cancel()

    on(scenario)


def test_health_tells_what_a_restart_would_cure_and_readiness_what_is_missing() -> None:
    async def scenario(s: Scene) -> None:
        lag, parts = [0.0], {"kopf": True}
        health = Health(s.caches, lambda: lag[0], lambda: parts)
        assert health.illnesses() == [], "an API server that never answered is not cured by a restart"
        assert "starting or stopping" in health.unready()
        health.serving = True
        assert "pods are not listed yet" in health.unready()
        for informer in s.caches.all.values():
            informer.synced.set()
        assert health.unready() == []
        lag[0], parts["kopf"] = 11.0, False
        s.caches.pods._last_sign_of_life -= 301
        assert health.illnesses() == [
            "kopf has ended",
            "the event loop is 11 s late",
            "the informer of pods did nothing for 301 s",
        ]

    on(scenario)
