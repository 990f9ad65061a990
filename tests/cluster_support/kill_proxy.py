"""Stands between the operator and the API server, counts its writes, and kills it right after a chosen one.

TLS on both sides, since the operator sends its token only to a server that its authority vouches for. The
operator's own requests pass unchanged, so that the API server judges its real rights.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import aiohttp
from aiohttp import web
from yarl import URL

from hack.devcluster.cluster import DevCluster
from hack.devcluster.pki import Authority

Moment = Literal["unanswered", "answered"]
"""``unanswered``: the API server has stored the write, the operator never learns. ``answered``: it has."""

_PATH = re.compile(
    r"^(?:/api|/apis/[^/]+)/v[^/]+/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NOT_COUNTED = frozenset({"leases", "tokenreviews", "secrets"})
"""Writes of the operator's own housekeeping; they come by the clock."""
_OF_ONE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@dataclass(frozen=True)
class Write:
    """One write that the API server accepted."""

    verb: str
    plural: str
    subresource: str
    name: str

    @property
    def kind(self) -> str:
        """``create jobs``, ``patch finetunejobs/status`` …"""
        return f"{self.verb} {self.plural}" + (f"/{self.subresource}" if self.subresource else "")


@dataclass
class _Order:
    namespace: str
    kill_after: int | None
    moment: Moment
    pid: int
    writes: list[Write]
    killed: threading.Event


class KillProxy:
    """A context manager that serves on ``127.0.0.1:port``."""

    def __init__(self, cluster: DevCluster) -> None:
        self._upstream = cluster.server
        pki = cluster.state.pki
        certificate, key = Authority(pki).issue("kill-proxy", "kill-proxy", server_names=["127.0.0.1"])
        self._server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server_tls.load_cert_chain(certificate, key)
        self._client_tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._order = _Order("", None, "answered", 0, [], threading.Event())
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="kill-proxy")
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20), "the proxy did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def watch(self, namespace: str, pid: int, kill_after: int | None, moment: Moment = "answered") -> None:
        """From now on count writes in ``namespace``; SIGKILL ``pid`` right after the ``kill_after``-th."""
        self._order = _Order(namespace, kill_after, moment, pid, [], threading.Event())

    @property
    def writes(self) -> list[Write]:
        """What was written in the namespace so far, by whichever process."""
        return list(self._order.writes)

    @property
    def killed(self) -> bool:
        return self._order.killed.is_set()

    # --- Inside: the proxy's own thread ---------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(ssl=self._client_tls, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            app = web.Application(client_max_size=16 << 20)
            app.router.add_route("*", "/{path:.*}", self._forward)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._server_tls)
            await site.start()
            self.port = int(runner.addresses[0][1])
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        order = self._order
        headers = {
            key: value for key, value in request.headers.items() if key.lower() not in _OF_ONE_CONNECTION
        }
        body = await request.read()
        url = URL(self._upstream + request.raw_path, encoded=True)
        # A write is carried through even if the operator goes away: the API server has it already.
        answer = await asyncio.shield(self._ask(request.method, url, headers, body))
        try:
            is_last = self._count(order, request, answer.status)
            if is_last and order.moment == "unanswered":
                _kill(order)
            response = web.StreamResponse(status=answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in _OF_ONE_CONNECTION:
                    response.headers.add(key, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            if is_last and order.moment == "answered":
                _kill(order)
            return response
        finally:
            answer.close()

    async def _ask(
        self, method: str, url: URL, headers: dict[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        return await self._session.request(method, url, headers=headers, data=body or None)

    def _count(self, order: _Order, request: web.Request, status: int) -> bool:
        """Note an accepted write; True when it is the one after which the operator is to die."""
        verb, found = _VERBS.get(request.method), _PATH.match(request.path)
        if verb is None or found is None or status >= 300 or found["namespace"] != order.namespace:
            return False
        if found["plural"] in _NOT_COUNTED:
            return False
        order.writes.append(Write(verb, found["plural"], found["subresource"] or "", found["name"] or ""))
        return len(order.writes) == order.kill_after


def _kill(order: _Order) -> None:
    os.kill(order.pid, signal.SIGKILL)
    order.killed.set()
