"""What is measured, one module per question; the table below is their order in a full run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bench.scenarios import cold, failover, idle, load, restart, steady, writes
from bench.scenarios.context import Bench

Scenario = Callable[[Bench], Awaitable[None]]

# The cold start comes after the burst, whose finished jobs it finds.
SCENARIOS: Mapping[str, Scenario] = {
    "idle": idle.run,
    "writes": writes.run,
    "rate": load.run_rate,
    "burst": load.run_burst,
    "cold": cold.run,
    "wide": load.run_wide,
    "restart": restart.run,
    "steady": steady.run,
    "failover": failover.run,
}
