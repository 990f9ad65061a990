"""Liveness and readiness: restart the process only for what a restart can cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from aiohttp import web

from tunewright.cluster.caches import Caches

LONGEST_LAG_SECONDS = 10.0
LONGEST_INFORMER_SILENCE_SECONDS = 300.0
"""An informer hears a bookmark each minute and tries again every 8 s when the API server is away."""


class Health:
    """``/healthz`` and ``/readyz``. ``parts`` tells which parts of the process are alive, by name."""

    def __init__(
        self,
        caches: Caches,
        lag_seconds: Callable[[], float],
        parts: Callable[[], Mapping[str, bool]],
    ) -> None:
        self._caches = caches
        self._lag_seconds = lag_seconds
        self._parts = parts
        self.serving = False
        """Set when the servers are up and no shutdown has begun."""

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process can do its work, however the API server fares; else 503 with reasons."""
        return _answer(self.illnesses())

    async def readyz(self, request: web.Request) -> web.Response:
        """200 once all caches have been filled, on standbys too; else 503 with what is missing."""
        return _answer(self.unready())

    def illnesses(self) -> list[str]:
        """Why a restart is needed; empty when it is not."""
        reasons = [f"{name} has ended" for name, alive in self._parts().items() if not alive]
        lag = self._lag_seconds()
        if lag > LONGEST_LAG_SECONDS:
            reasons.append(f"the event loop is {lag:.0f} s late")
        for plural, informer in self._caches.all.items():
            if informer.idle_seconds() > LONGEST_INFORMER_SILENCE_SECONDS:
                reasons.append(f"the informer of {plural} did nothing for {informer.idle_seconds():.0f} s")
        return reasons

    def unready(self) -> list[str]:
        """What is not there yet."""
        reasons = [
            f"{plural} are not listed yet"
            for plural, informer in self._caches.all.items()
            if not informer.synced.is_set()
        ]
        return reasons if self.serving else ["starting or stopping", *reasons]


def _answer(reasons: Iterable[str]) -> web.Response:
    text = "".join(f"{reason}\n" for reason in reasons)
    return web.Response(text=text or "ok\n", status=503 if text else 200)
