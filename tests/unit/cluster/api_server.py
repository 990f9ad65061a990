"""A small API server on a real socket, for the faults that a real one can't be asked for.

It stores objects of any resource with resource versions, lists them in pages, streams watches from any
version it still remembers, honours uid and version preconditions, and misbehaves on request. What it claims
about real behaviour is checked against the real API server by tests/cluster/test_client.py.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tunewright.cluster.client import Client
from tunewright.cluster.credentials import AuthorizationSource, Credentials
from tunewright.cluster.resources import BY_PLURAL
from tunewright.cluster.transport import RetryPolicy, Transport

Manifest = dict[str, Any]
DEADLINE_SECONDS = 20.0


@dataclass
class Fault:
    """What to do to the next ``times`` requests that match method and a part of the path."""

    method: str
    path: str = ""
    watch: bool | None = None
    times: int = 1
    status: int | None = None
    """Answer with this status and do nothing."""
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    cut: str = ""
    """``before`` or ``after`` the request took effect, drop the connection."""
    lines: list[bytes] | None = None
    """For a watch: send exactly these bytes, then close."""
    raw: bytes | None = None
    """Answer 200 with these bytes and do nothing."""
    hang: bool = False
    """For a watch: say nothing, keep the connection."""


class ApiServer:
    """The store and its HTTP face. ``requests`` lists ``METHOD path`` of all that came."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest_version = 0
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.log: list[tuple[int, str, str, Manifest]] = []
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.open_watches: set[asyncio.Task[Any]] = set()
        self.documents: dict[str, bytes] = {}
        """Answers by path that are given as they are: discovery."""
        self.gate: asyncio.Event | None = None
        """Set: requests wait for it."""
        self.at_gate = self.most_at_gate = 0
        self._changed = asyncio.Condition()
        self.url = ""

    # --- the store ---------------------------------------------------------------------------------
    async def put(self, plural: str, manifest: Manifest, event: str = "") -> Manifest:
        """Store ``manifest`` under a new version and tell the watches."""
        metadata = manifest["metadata"]
        key = (plural, metadata.get("namespace") or "", metadata["name"])
        old = self.objects.get(key)
        self.version += 1
        stored = json.loads(json.dumps(manifest))
        stored["metadata"]["uid"] = metadata.get("uid") or (
            old["metadata"]["uid"] if old else str(uuid.uuid4())
        )
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = stored
        await self._record(event or ("MODIFIED" if old else "ADDED"), plural, stored)
        return stored  # type: ignore[no-any-return]

    async def drop(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object and tell the watches."""
        self.version += 1
        stored = self.objects.pop((plural, namespace, name))
        stored = json.loads(json.dumps(stored))
        stored["metadata"]["resourceVersion"] = str(self.version)
        await self._record("DELETED", plural, stored)

    def compact(self) -> None:
        """Forget the history: watches from an old version get 410."""
        self.log.clear()
        self.oldest_version = self.version

    async def bookmark(self, plural: str) -> None:
        """Send a bookmark with a new version."""
        self.version += 1
        kind = BY_PLURAL[plural].kind
        await self._record(
            "BOOKMARK", plural, {"kind": kind, "metadata": {"resourceVersion": str(self.version)}}
        )

    def cut_watches(self) -> None:
        """Drop the connection of every open watch."""
        for task in list(self.open_watches):
            task.cancel()

    def count(self, method: str, part: str = "") -> int:
        """How many requests came with this method and part of the path."""
        return sum(entry.startswith(method) and part in entry for entry in self.requests)

    async def _record(self, event: str, plural: str, manifest: Manifest) -> None:
        self.log.append((self.version, event, plural, manifest))
        async with self._changed:
            self._changed.notify_all()

    # --- HTTP --------------------------------------------------------------------------------------
    async def handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        self.requests.append(f"{request.method} {request.path_qs}")
        self.headers.append(dict(request.headers))
        body = await request.json() if request.can_read_body else None
        self.bodies.append(body)
        fault = self._fault(request.method, request.path, watch)
        if fault and fault.cut == "before":
            return _cut(request)
        if self.gate is not None:
            await self._pass_gate(self.gate)
        if fault and fault.raw is not None:
            return web.Response(body=fault.raw)
        if fault and fault.status:
            return web.json_response(
                _status(fault.status) | fault.body, status=fault.status, headers=fault.headers
            )
        if request.path in self.documents:
            return web.Response(body=self.documents[request.path], content_type="application/json")
        plural, namespace, name, subresource = _parse(request.path)
        if watch:
            return await self._watch(request, plural, fault)
        verbs: dict[str, Callable[..., Awaitable[tuple[int, Any]]]] = {
            "GET": self._get if name else self._list,
            "POST": self._create,
            "PUT": self._replace,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        status, answer = await verbs[request.method](request, plural, namespace, name, subresource, body)
        if fault and fault.cut == "after":
            return _cut(request)
        return web.json_response(answer, status=status)

    async def _pass_gate(self, gate: asyncio.Event) -> None:
        self.at_gate += 1
        self.most_at_gate = max(self.most_at_gate, self.at_gate)
        await gate.wait()
        self.at_gate -= 1

    def _fault(self, method: str, path: str, watch: bool) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.path in path and fault.watch in (None, watch):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def _get(self, request: web.Request, plural: str, ns: str, name: str, *_: Any) -> tuple[int, Any]:
        stored = self.objects.get((plural, ns, name))
        return (200, stored) if stored else (404, _status(404, "NotFound"))

    async def _list(self, request: web.Request, plural: str, ns: str, *_: Any) -> tuple[int, Any]:
        items = [obj for (p, n, _), obj in sorted(self.objects.items()) if p == plural and ns in ("", n)]
        limit, start = int(request.query.get("limit", "100000")), int(request.query.get("continue", "0"))
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
        return 200, {"kind": "List", "metadata": metadata, "items": bare[start : start + limit]}

    async def _create(
        self, request: web.Request, plural: str, ns: str, name: str, sub: str, body: Manifest
    ) -> tuple[int, Any]:
        if (plural, ns, body["metadata"]["name"]) in self.objects:
            return 409, _status(409, "AlreadyExists")
        return 201, await self.put(plural, body)

    async def _replace(
        self, request: web.Request, plural: str, ns: str, name: str, sub: str, body: Manifest
    ) -> tuple[int, Any]:
        conflict = self._precondition(plural, ns, name, body["metadata"])
        return conflict or (200, await self.put(plural, body))

    async def _patch(
        self, request: web.Request, plural: str, ns: str, name: str, sub: str, body: Any
    ) -> tuple[int, Any]:
        conflict = self._precondition(plural, ns, name, body.get("metadata") or {})
        if conflict:
            return conflict
        stored = json.loads(json.dumps(self.objects[(plural, ns, name)]))
        _merge(stored, body)
        return 200, await self.put(plural, stored)

    async def _delete(
        self, request: web.Request, plural: str, ns: str, name: str, sub: str, body: Manifest
    ) -> tuple[int, Any]:
        conflict = self._precondition(plural, ns, name, body.get("preconditions") or {})
        if conflict:
            return conflict
        stored = self.objects[(plural, ns, name)]
        if stored["metadata"].get("finalizers"):
            marked = stored | {"metadata": stored["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
            return 200, await self.put(plural, marked)
        await self.drop(plural, ns, name)
        return 200, {"kind": "Status", "status": "Success"}

    def _precondition(self, plural: str, ns: str, name: str, wanted: Manifest) -> tuple[int, Any] | None:
        stored = self.objects.get((plural, ns, name))
        if stored is None:
            return 404, _status(404, "NotFound")
        for field_name in ("uid", "resourceVersion"):
            if wanted.get(field_name) not in (None, stored["metadata"][field_name]):
                return 409, _status(409, "Conflict") | {"message": f"Precondition failed: {field_name}"}
        return None

    async def _watch(self, request: web.Request, plural: str, fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        task = asyncio.current_task()
        assert task is not None
        self.open_watches.add(task)
        try:
            await response.prepare(request)
            if fault and fault.hang:
                await asyncio.Event().wait()
            if fault and fault.lines is not None:
                for line in fault.lines:
                    await response.write(line)
                return response
            await self._stream(request, response, plural)
        except asyncio.CancelledError:
            if request.transport:
                request.transport.abort()
        except ConnectionResetError:
            return response  # the client went away
        finally:
            self.open_watches.discard(task)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, plural: str) -> None:
        since = int(request.query["resourceVersion"])
        if since < self.oldest_version:
            gone = _status(410, "Expired")
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return

        def behind() -> bool:
            return any(version > since and of == plural for version, _, of, _ in self.log)

        while True:
            for version, event, of, manifest in list(self.log):
                if version > since and of == plural:
                    await response.write(json.dumps({"type": event, "object": manifest}).encode() + b"\n")
                    since = version
            async with self._changed:
                await self._changed.wait_for(behind)


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _status(code: int, reason: str = "") -> dict[str, Any]:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f"{code} {reason}",
    }


def _parse(path: str) -> tuple[str, str, str, str]:
    """Plural, namespace, name, subresource."""
    parts = path.strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    parts += ["", ""]
    return parts[0], namespace, parts[1], parts[2]


def _merge(target: Manifest, patch: Manifest) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


@asynccontextmanager
async def serving() -> AsyncIterator[ApiServer]:
    """A running server on a free port."""
    server = ApiServer()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.cut_watches()
        await runner.cleanup()


def client_of(server: ApiServer, **options: Any) -> Client:
    """A client that retries without long pauses."""
    credentials = Credentials(server.url, None, AuthorizationSource(lambda: None))
    options.setdefault("retry", RetryPolicy(base_seconds=0.001))
    return Client(Transport(credentials, **options))


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for ``condition``, looking often; fails after a deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_SECONDS
    while not condition():
        assert loop.time() < deadline, f"never happened: {what or condition}"
        await asyncio.sleep(0.005)
