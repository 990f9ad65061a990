"""One job, one pass: look at the world, decide, act. All that is difficult is in plan and in apply."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from tunewright.core.model import Manifest, Plan, World
from tunewright.core.plan import plan
from tunewright.core.settings import OperatorSettings
from tunewright.core.status import tripped


class Cluster(Protocol):
    """The cluster as a reconcile sees it; implemented by tunewright.cluster."""

    def job(self, namespace: str, name: str) -> Manifest | None:
        """The FineTuneJob, at least as new as our own last write of it; None when it is gone."""

    async def world(self, job: Manifest) -> World:
        """Raw facts about ``job`` from caches, and single reads for what isn't cached."""

    async def execute(self, job: Manifest, plan: Plan) -> None:
        """Carry ``plan`` out. Raises ApiError; a pass that broke off is simply done again."""


class Reconciler:
    """Level-based: keeps nothing between passes that the cluster doesn't hold."""

    def __init__(
        self, cluster: Cluster, settings: Callable[[], OperatorSettings], clock: Callable[[], datetime]
    ) -> None:
        """``settings`` is called each time: the progress endpoint's certificate may have been renewed."""
        self._cluster = cluster
        self._settings = settings
        self._clock = clock

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring one job a step further; seconds until the next look, None: when something changes."""
        job = self._cluster.job(namespace, name)
        if job is None:
            return None
        world = await self._cluster.world(job)
        try:
            decided = plan(world, self._settings(), self._clock())
        except Exception as error:
            await self._say_tripped(job, error)
            raise
        await self._cluster.execute(world.job, decided)
        return decided.requeue_after_seconds

    async def _say_tripped(self, job: Manifest, error: Exception) -> None:
        """One job that the code trips over says so in its status; the caller backs off and logs."""
        stored = job.get("status") or {}
        status = tripped(stored, job["metadata"].get("generation", 1), error, self._clock())
        if status != stored:
            await self._cluster.execute(job, Plan(status=status))
