"""What all scenarios share: the cluster, the operator that runs now, and where figures go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bench.cluster import BenchCluster
from bench.figures import Figure, Figures
from bench.load import Timeline
from bench.operator_process import OperatorProcess
from bench.scale import Scale

FLUSH_SECONDS = 2.0
"""Events are written behind the status; so long after a job's end all of them are there."""


@dataclass
class Bench:
    """A run in progress."""

    cluster: BenchCluster
    scale: Scale
    say: Callable[[str], None]
    operator: OperatorProcess
    figures: list[Figure]

    def take(self, figures: Figures) -> None:
        """Keep a scenario's figures and say them."""
        for figure in figures.all:
            self.say(f"  {figure.what}: {figure.shown}")
        self.figures += figures.all

    async def restart_operator(self) -> None:
        """A fresh operator process in place of the present one; not yet ready."""
        await self.cluster.stop_child(self.operator.child)
        self.operator = self.cluster.start_operator()


async def released(timeline: Timeline, count: int) -> None:
    """Wait until ``count`` jobs have ended and been let go of.

    Raises RuntimeError when one has failed: what was measured is no undisturbed life then.
    """
    await timeline.wait("released", count)
    await asyncio.sleep(FLUSH_SECONDS)
    failed = {name: phase for name, phase in timeline.phases.items() if phase == "Failed"}
    if failed:
        name = next(iter(failed))
        message = timeline.jobs[name]["status"].get("message")
        raise RuntimeError(f"{len(failed)} jobs of {timeline.namespace} failed, {name}: {message}")
