"""Takes keys from the queue, reconciles them, and decides when each comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tunewright.cluster.caches import JobKey
from tunewright.cluster.errors import ApiError, Conflict, NotFound
from tunewright.cluster.workqueue import QueueClosed, WorkQueue

log = logging.getLogger(__name__)

Reconcile = Callable[[str, str], Awaitable[float | None]]
NAMESPACE_TERMINATING_SECONDS = 10.0
LONGEST_RECONCILE_SECONDS = 300.0


class Workers:
    """``count`` tasks that work on different keys at the same time."""

    def __init__(
        self,
        queue: WorkQueue[JobKey],
        reconcile: Reconcile,
        count: int,
        observe: Callable[[str, float], None] = lambda outcome, seconds: None,
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._count = count
        self._observe = observe

    async def run(self) -> None:
        """Work until cancelled or until the queue is closed."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except QueueClosed:
                return
            try:
                await self._once(key)
            finally:
                self._queue.done(key)

    async def _once(self, key: JobKey) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(LONGEST_RECONCILE_SECONDS):
                requeue_after = await self._reconcile(*key)
        except Exception as error:  # one job that trips the code must not disturb the others
            outcome = self._failed(key, error)
        else:
            self._queue.forget(key)
            outcome = "done"
            if requeue_after is not None:
                outcome = "requeued"
                self._queue.add_after(key, requeue_after)
        self._observe(outcome, time.perf_counter() - started)

    def _failed(self, key: JobKey, error: Exception) -> str:
        """Back off; returns the outcome for metrics. Somebody else's write is no error."""
        name = "/".join(key)
        at_least = 0.0
        if isinstance(error, ApiError):
            at_least = error.retry_after_seconds or 0.0
            if error.namespace_terminating:
                at_least = max(at_least, NAMESPACE_TERMINATING_SECONDS)
        delay = self._queue.retry(key, at_least)
        if isinstance(error, Conflict | NotFound) and self._queue.failures(key) < 4:
            log.debug("%s changed meanwhile, again in %.1f s: %s", name, delay, error)
            return "conflict"
        if isinstance(error, ApiError | TimeoutError):
            log.warning("%s: %s; again in %.1f s", name, error or "took too long", delay)
        else:
            log.error("%s: unexpected error, again in %.1f s", name, delay, exc_info=error)
        return "error"
