"""How long no one leads after the leader's end: crashed, and asked to stop."""

from __future__ import annotations

import asyncio
import signal
import time

from bench.cluster import SYSTEM_NAMESPACE
from bench.figures import Figures
from bench.jobs import fine_tune_job
from bench.load import Timeline, create
from bench.operator_process import OperatorProcess
from bench.scenarios.context import Bench

NAMESPACE = "bench-failover"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
TAKEOVER_DEADLINE_SECONDS = 60


async def run(bench: Bench) -> None:
    """A second replica stands by each time; a job is created at the moment the leader ends."""
    figures = Figures("failover")
    await bench.cluster.namespace(NAMESPACE)
    timeline = Timeline(bench.cluster.api, NAMESPACE)
    async with timeline.watching():
        for name, number, what in (
            ("crash", signal.SIGKILL, "leader killed (SIGKILL)"),
            ("graceful", signal.SIGTERM, "leader asked to stop (SIGTERM)"),
        ):
            if name == "crash" and not bench.scale.crash:
                continue
            lease, reconcile = await _replace_leader(bench, number, timeline, name)
            figures.add(f"{name}_lease_s", f"{what} → standby leads", lease, "s")
            figures.add(f"{name}_reconcile_s", f"{what} → prepare Job of a new job", reconcile, "s")
    bench.take(figures)


async def _replace_leader(
    bench: Bench, number: signal.Signals, timeline: Timeline, job: str
) -> tuple[float, float]:
    """Seconds from the signal until the standby holds the Lease, and until it made a child of ``job``."""
    standby = bench.cluster.start_operator()
    await standby.ready()
    made_before = timeline.reached("prepare_job")
    leads = asyncio.create_task(_leads(bench, standby))
    start = time.monotonic()
    bench.operator.child.signal(number)
    await create(bench.cluster.api, fine_tune_job(NAMESPACE, job))
    async with asyncio.timeout(TAKEOVER_DEADLINE_SECONDS):
        led_at = await leads
        await timeline.wait("prepare_job", made_before + 1)
    await bench.cluster.stop_child(bench.operator.child)
    bench.operator = standby
    return led_at - start, timeline.moments[job]["prepare_job"] - start


async def _leads(bench: Bench, replica: OperatorProcess) -> float:
    """When the replica's name appeared in the Lease."""
    async for kind, item in bench.cluster.api.follow(LEASES):
        for lease in item if kind == "SYNC" else (item,):
            if (lease["spec"].get("holderIdentity") or "").startswith(f"{replica.name}_"):
                return time.monotonic()
    raise AssertionError("the watch never ends by itself")
