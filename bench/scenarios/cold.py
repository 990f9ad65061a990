"""A fresh operator among finished jobs: how soon it is ready, and that it writes nothing."""

from __future__ import annotations

import asyncio
import time

from bench.audit import count_by_kind
from bench.figures import Figures
from bench.scenarios.context import Bench

LOOK_DEADLINE_SECONDS = 120
QUIET_KINDS = ("read", "lease", "token review")


async def run(bench: Bench) -> None:
    """Counts the jobs that are there: those that earlier scenarios left."""
    figures = Figures("cold")
    listed = await bench.cluster.api.get("/apis/tunewright.dev/v1alpha1/finetunejobs")
    jobs = len(listed["items"])
    position = bench.cluster.audit.position()
    await bench.restart_operator()
    ready = await bench.operator.ready()
    looked = await _all_looked_at(bench, jobs)
    await asyncio.sleep(bench.scale.cold_seconds)
    cost, requests = bench.operator.cost(), bench.cluster.audit.requests(position)
    # The one before wrote its last until it was gone; it had nothing to do but to release its Lease.
    written = {kind: n for kind, n in count_by_kind(requests).items() if kind not in QUIET_KINDS}
    figures.add("jobs", "finished jobs in the cluster", jobs)
    figures.add("ready_s", "start → ready, imports included", ready, "s")
    figures.add("looked_s", "start → every job looked at", looked, "s")
    figures.add("writes", "writes (status, children, events)", sum(written.values()))
    figures.add("cpu_s", "CPU until then", cost.cpu_seconds, "s")
    figures.add("rss_mb", "memory (RSS)", cost.rss_bytes / 1e6, "MB")
    bench.take(figures)


async def _all_looked_at(bench: Bench, jobs: int) -> float:
    """Seconds from the operator's start until each job was reconciled once and the queue is empty."""
    operator = bench.operator
    async with asyncio.timeout(LOOK_DEADLINE_SECONDS):
        while True:
            reconciles = await operator.metric("tunewright_reconcile_seconds_count")
            waiting = await operator.metric("tunewright_workqueue_depth")
            if reconciles >= jobs and waiting == 0:
                return time.monotonic() - operator.started_at
            await asyncio.sleep(0.1)
