"""What an operator costs that has nothing to do."""

from __future__ import annotations

import asyncio

from bench.figures import Figures
from bench.scenarios.context import Bench

CALM_SECONDS = 5.0
"""After the start, until imports and first lists are over."""


async def run(bench: Bench) -> None:
    """Requests, CPU and memory with no job in the cluster."""
    figures = Figures("idle")
    await asyncio.sleep(CALM_SECONDS)
    position, before = bench.cluster.audit.position(), bench.operator.cost()
    await asyncio.sleep(bench.scale.idle_seconds)
    after, requests = bench.operator.cost(), bench.cluster.audit.requests(position)
    seconds = after.monotonic_seconds - before.monotonic_seconds
    leases = sum(request.kind == "lease" for request in requests)
    figures.add("requests_per_second", "requests to the API server", len(requests) / seconds, "/s")
    figures.add("lease_requests_per_second", "of these, renewals of the Lease", leases / seconds, "/s")
    figures.add("cpu_percent", "CPU of one core", after.cpu_percent_since(before), "%")
    figures.add("rss_mb", "memory (RSS)", after.rss_bytes / 1e6, "MB")
    bench.take(figures)
