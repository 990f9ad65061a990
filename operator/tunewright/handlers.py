"""kopf's part: watch FineTuneJobs and hand each one over. Nothing is written, nothing is decided here.

kopf runs in a thread and an event loop of its own. There it can do no harm: when it stops it cancels every
task of its loop that is younger than itself, and a watch error that it does not expect ends it. It is started
again, and what it missed meanwhile our own informer has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import kopf

from tunewright.cluster.credentials import Credentials
from tunewright.cluster.transport import USER_AGENT, close_session
from tunewright.core import names
from tunewright.core.model import Manifest

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
STOP_SECONDS = 10.0

OnEvent = Callable[[str | None, Manifest], None]
"""Called in kopf's thread with the event's type (None for the first list) and the object."""


class _Backoffs:
    """Pauses between kopf's tries. Endless: a finite list makes kopf give up, and with it the process."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0, 2.0, 4.0)
        while True:
            yield 8.0


def build_registry(
    credentials: Credentials, on_event: OnEvent, sessions: list[aiohttp.ClientSession]
) -> kopf.OperatorRegistry:
    """The handlers, on a registry of their own. Sessions that logins open are added to ``sessions``: the
    caller closes them."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        apply_settings(settings)

    @kopf.on.login(registry=registry, retries=None, errors=kopf.ErrorsMode.TEMPORARY)
    async def login(**_: Any) -> kopf.AiohttpSession:
        sessions.append(authenticated_session(credentials))
        return kopf.AiohttpSession(server=credentials.server, aiohttp_session=sessions[-1])

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        on_event(type, dict(body))

    return registry


def apply_settings(settings: kopf.OperatorSettings) -> None:
    """Settings under which kopf writes nothing, needs few rights, and retries for ever."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = random.randint(290, 580)  # whole: the API server refuses fractions
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    settings.queueing.idle_timeout = 1
    # Never that of ours: kopf takes its finalizer off every object for which it has no deletion handler.
    settings.persistence.finalizer = f"{names.GROUP}/kopf-unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    settings.execution.max_workers = 4
    settings.process.ultimate_exiting_timeout = None


def authenticated_session(credentials: Credentials) -> aiohttp.ClientSession:
    """A session of the running loop that sends our credentials, read anew as they are replaced."""

    async def authenticate(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        header = await credentials.authorization.header()
        if header:
            request.headers["Authorization"] = header
        response = await handler(request)
        if response.status == 401:
            credentials.authorization.expire()
        return response

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=credentials.ssl_context or True),
        headers={"User-Agent": USER_AGENT},
        middlewares=(authenticate,),
        proxy=credentials.proxy,
    )


class KopfThread:
    """Runs kopf until :meth:`stop`, and again whenever it ends by itself."""

    def __init__(self, credentials: Credentials, on_event: OnEvent, namespace: str | None = None) -> None:
        self._credentials = credentials
        self._on_event = on_event
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="kopf", daemon=True)
        self._end_run: Callable[[], object] | None = None
        self.restarts = 0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Is the thread there? It ends only after :meth:`stop`."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """End the watch; waits some seconds at most (kopf takes about five)."""
        self._stop.set()
        if self._end_run is not None:
            self._end_run()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def _supervise(self) -> None:
        failures = -1
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                asyncio.run(self._run())
                ended = "it ended"
            except Exception as error:
                ended = f"it failed: {error}"
            if self._stop.is_set():
                return
            failures = 0 if time.monotonic() - started > 60 else min(failures + 1, 10)
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**failures)
            self.restarts += 1
            log.warning("kopf is started again in %.1f s: %s", pause, ended)
            self._stop.wait(pause)

    async def _run(self) -> None:
        # Not the threading event: kopf waits for that in a thread of the loop's executor, which keeps the
        # loop from closing when kopf ends by itself.
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed already
                loop.call_soon_threadsafe(ended.set)

        self._end_run = end
        if self._stop.is_set():
            return
        sessions: list[aiohttp.ClientSession] = []
        try:
            await kopf.operator(
                registry=build_registry(self._credentials, self._on_event, sessions),
                standalone=True,
                clusterwide=self._namespace is None,
                namespaces=[self._namespace] if self._namespace else (),
                stop_flag=ended,
            )
        finally:
            for session in sessions:
                await close_session(session)
