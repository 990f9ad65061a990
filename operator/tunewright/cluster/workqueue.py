"""client-go's work queue: a key is never worked on twice at once, and none is lost while it is.

Keys that are added while they wait are merged; keys that are added while they are worked on run again
afterwards. Failed keys come back after an exponential back-off of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BASE_SECONDS = 0.05
CAP_SECONDS = 300.0
JITTER = 0.2


class QueueClosed(Exception):
    """The queue was shut down: there is no more work."""


@dataclass
class QueueStats:
    """Totals since the start."""

    adds: int = 0
    retries: int = 0


class WorkQueue(Generic[K]):
    """Lives in one event loop. ``get`` a key, work on it, ``done`` it; ``retry`` or ``forget`` in between."""

    def __init__(
        self,
        *,
        base_seconds: float = BASE_SECONDS,
        cap_seconds: float = CAP_SECONDS,
        jitter: float = JITTER,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._jitter = jitter
        self._on_wait = on_wait or (lambda seconds: None)
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # every key that needs work, and since when
        self._processing: dict[K, float] = {}  # every key that is worked on, and since when
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.stats = QueueStats()

    def __len__(self) -> int:
        """Keys that wait for a worker (delayed ones not counted)."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._timers)

    def longest_running_seconds(self) -> float:
        """For how long the slowest key is being worked on; 0 if none is."""
        started = min(self._processing.values(), default=None)
        return 0.0 if started is None else self._now() - started

    def add(self, key: K) -> None:
        """Ask for work on ``key`` now."""
        if self._closed or key in self._dirty:
            return
        self.stats.adds += 1
        self._dirty[key] = self._now()
        if key not in self._processing:
            self._ready.append(key)
            self._wake_one()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for work on ``key`` in ``seconds``; of several delays the earliest wins."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._now() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due, self._fire, key)

    def retry(self, key: K, at_least_seconds: float = 0.0) -> float:
        """Ask for work on ``key`` after its back-off, and make the next one longer. Returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.stats.retries += 1
        # 2 ** 1024 does not fit a float; the cap is reached long before 64.
        delay = min(self._cap_seconds, self._base_seconds * 2.0 ** min(failures, 64))
        delay = max(delay * random.uniform(1 - self._jitter, 1 + self._jitter), at_least_seconds)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key went well: its next failure starts the back-off anew."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often ``key`` failed in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key, which is then being worked on until ``done``. Raises QueueClosed."""
        while not self._ready:
            if self._closed:
                raise QueueClosed
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:  # this worker was woken for a key that it will not take
                    self._wake_one()
                raise
        if self._closed:
            raise QueueClosed
        key = self._ready.popleft()
        self._on_wait(self._now() - self._dirty.pop(key))
        self._processing[key] = self._now()
        return key

    def done(self, key: K) -> None:
        """The work on ``key`` ended; if it was asked for meanwhile, it waits again."""
        self._processing.pop(key, None)
        if key in self._dirty and not self._closed:
            self._ready.append(key)
            self._wake_one()

    def close(self) -> None:
        """Drop what waits and make every ``get`` raise QueueClosed."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._waiters:
            self._wake_one()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
