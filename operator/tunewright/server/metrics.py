"""Prometheus metrics: what operators of the operator need to see, with a bounded number of series.

Gauges are read from the queue, the caches and the progress memory when they are scraped, so that they can't
drift from them, and those of a job are gone when the job is.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tunewright.cluster.caches import Caches, JobKey
from tunewright.cluster.workqueue import WorkQueue
from tunewright.core.model import Manifest
from tunewright.core.progress import ProgressBook

# The time at which each series began is of no use here and doubles the number of series.
disable_created_metrics()  # type: ignore[no-untyped-call]

MOST_JOBS_WITH_PROGRESS = 1000
"""Beyond, no further job gets progress series; tunewright_progress_jobs_omitted tells how many."""

_PROGRESS_GAUGES = {
    "step": ("tunewright_training_step", "Optimizer steps done."),
    "total_steps": ("tunewright_training_total_steps", "Optimizer steps planned."),
    "epoch": ("tunewright_training_epoch", "Epochs done."),
    "loss": ("tunewright_training_loss", "Training loss as last reported."),
    "eval_loss": ("tunewright_training_eval_loss", "Evaluation loss as last reported."),
    "learning_rate": ("tunewright_training_learning_rate", "Learning rate as last reported."),
    "grad_norm": ("tunewright_training_gradient_norm", "Gradient norm as last reported."),
    "tokens_per_second": ("tunewright_training_tokens_per_second", "Tokens per second, all ranks."),
    "last_checkpoint_step": ("tunewright_training_last_checkpoint_step", "Step of the last checkpoint."),
    "peak_memory_bytes": ("tunewright_training_peak_memory_bytes", "Peak device memory of one rank."),
}
# 1 ms to 30 s: a reconcile is a few requests of some milliseconds, or one that times out.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The registry and what is counted as it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.api_requests = Counter(
            "tunewright_api_requests",
            "Requests to the API server, retries counted each; code is 'error' without an answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.api_seconds = Histogram(
            "tunewright_api_request_seconds",
            "Duration of requests to the API server.",
            ["verb"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "tunewright_reconcile_seconds",
            "Duration of reconciles by outcome: done, requeued, conflict, error.",
            ["outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.queue_wait_seconds = Histogram(
            "tunewright_workqueue_wait_seconds",
            "Time from asking for work on a key until a worker takes it.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.progress_posts = Counter(
            "tunewright_progress_posts",
            "Progress posts of trainers by HTTP status of the answer.",
            ["code"],
            registry=self.registry,
        )
        self.loop_lag_seconds = Histogram(
            "tunewright_event_loop_lag_seconds",
            "How late the event loop woke a task that slept.",
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def observe_request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """Count one request to the API server."""
        self.api_requests.labels(verb, resource, code).inc()
        self.api_seconds.labels(verb).observe(seconds)

    def watch_state(
        self,
        queue: WorkQueue[JobKey],
        caches: Caches,
        progress: ProgressBook,
        is_leader: Callable[[], bool],
    ) -> None:
        """Read gauges from these whenever metrics are scraped."""
        self.registry.register(_StateCollector(queue, caches, is_leader))
        self.registry.register(_ProgressCollector(caches, progress))

    async def handle(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.registry), headers={"Content-Type": content_type})


class _StateCollector(Collector):
    def __init__(self, queue: WorkQueue[JobKey], caches: Caches, is_leader: Callable[[], bool]) -> None:
        self._queue = queue
        self._caches = caches
        self._is_leader = is_leader

    def describe(self) -> list[Metric]:
        """Nothing in advance: the registry needs no scrape to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        queue = self._queue
        yield _gauge("tunewright_leader", "1 on the replica that holds the lease.", float(self._is_leader()))
        yield _gauge("tunewright_workqueue_depth", "Keys that wait for a worker.", len(queue))
        yield _gauge("tunewright_workqueue_delayed", "Keys that wait for their time.", queue.delayed)
        yield _gauge(
            "tunewright_workqueue_longest_running_seconds",
            "Age of the oldest reconcile that runs.",
            queue.longest_running_seconds(),
        )
        yield CounterMetricFamily("tunewright_workqueue_adds", "Keys added.", value=queue.stats.adds)
        yield CounterMetricFamily("tunewright_workqueue_retries", "Keys retried.", value=queue.stats.retries)
        jobs = GaugeMetricFamily("tunewright_jobs", "FineTuneJobs by phase.", labels=["phase"])
        for phase, count in sorted(Tally(map(_phase, self._caches.jobs.store)).items()):
            jobs.add_metric([phase], count)
        yield jobs
        yield from self._informers()

    def _informers(self) -> Iterator[Metric]:
        objects = GaugeMetricFamily("tunewright_informer_objects", "Cached objects.", labels=["resource"])
        contact = GaugeMetricFamily(
            "tunewright_informer_last_contact_seconds",
            "Seconds since the API server last told this informer something.",
            labels=["resource"],
        )
        for plural, informer in self._caches.all.items():
            objects.add_metric([plural], len(informer.store))
            seconds = informer.last_contact_seconds()
            if seconds is not None:
                contact.add_metric([plural], seconds)
        yield objects
        yield contact


class _ProgressCollector(Collector):
    def __init__(self, caches: Caches, progress: ProgressBook) -> None:
        self._caches = caches
        self._progress = progress

    def describe(self) -> list[Metric]:
        """Nothing in advance, as above."""
        return []

    def collect(self) -> Iterator[Metric]:
        gauges = {
            field: GaugeMetricFamily(name, text, labels=["namespace", "job"])
            for field, (name, text) in _PROGRESS_GAUGES.items()
        }
        percent = GaugeMetricFamily(
            "tunewright_training_percent", "Training done.", labels=["namespace", "job"]
        )
        shown = omitted = 0
        for job in self._caches.jobs.store:
            report = self._progress.report(job["metadata"]["uid"])
            if report is None or _phase(job) in ("Succeeded", "Failed"):
                continue
            if shown == MOST_JOBS_WITH_PROGRESS:
                omitted += 1
                continue
            shown += 1
            labels = [job["metadata"]["namespace"], job["metadata"]["name"]]
            if report.percent is not None:
                percent.add_metric(labels, report.percent)
            for field, gauge in gauges.items():
                value = report.values.get(field)
                if isinstance(value, int | float):
                    gauge.add_metric(labels, value)
        yield percent
        yield from gauges.values()
        yield _gauge("tunewright_progress_jobs_omitted", "Jobs without progress series.", omitted)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _phase(job: Manifest) -> str:
    status: dict[str, Any] = job.get("status") or {}
    return str(status.get("phase") or "Pending")


class LoopWatchdog:
    """Measures how late the event loop is. Run :meth:`run` as a task."""

    INTERVAL_SECONDS = 0.25

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._woke_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Sleep and compare, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._woke_at = loop.time()
            await asyncio.sleep(self.INTERVAL_SECONDS)
            self._observe(max(0.0, loop.time() - self._woke_at - self.INTERVAL_SECONDS))

    def lag_seconds(self) -> float:
        """How late the next wake-up is already."""
        return max(0.0, asyncio.get_running_loop().time() - self._woke_at - self.INTERVAL_SECONDS)
