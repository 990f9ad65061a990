"""Serves containers' logs to the API server, so that `kubectl logs` works."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from hack.devcluster.container import Container
from hack.devcluster.pod import PodWorker

API_SERVER_NAME = "kube-apiserver-kubelet-client"
FindPod = Callable[[str, str], PodWorker | None]
"""The pod of a namespace and name."""
CHUNK_BYTES = 65536
FOLLOW_POLL_SECONDS = 0.2


class LogServer:
    """HTTPS, on a free port of 127.0.0.1, for the API server's client certificate only."""

    def __init__(self, find_pod: FindPod) -> None:
        self._find_pod = find_pod
        self._runner: web.AppRunner | None = None

    async def start(self, authority: Path, certificate: Path, key: Path) -> int:
        """Serve; returns the port."""
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        application.router.add_route("*", "/{what}/{rest:.*}", self._not_played)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(certificate, key)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _not_played(self, request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        return web.Response(status=501, text=f"A process node doesn't play {what}; only logs.")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        if not _is_api_server(request):
            return web.Response(status=403, text="Only the API server may ask.")
        names, query = request.match_info, request.query
        worker = self._find_pod(names["namespace"], names["pod"])
        container = worker.containers.get(names["container"]) if worker else None
        if container is None:
            return web.Response(
                status=404, text=f"No container {names['container']} of pod {names['pod']} here."
            )
        unsupported = {"timestamps", "sinceSeconds", "sinceTime"} & {
            key for key in query if query[key] != "false"
        }
        if unsupported:
            text = f"A process node doesn't know when a line was logged: no {', '.join(sorted(unsupported))}."
            return web.Response(status=501, text=text)
        restart = container.state.restarts
        if query.get("previous") == "true":
            restart -= 1
        path = container.place.log_file(restart)
        if "waiting" in container.state.current and not path.is_file():
            # What ran before is shown while the next start is awaited.
            path = container.place.log_file(max(0, restart - 1))
        if restart < 0 or not path.is_file():
            return web.Response(status=400, text=_why_nothing(names["pod"], container))
        return await _send(request, container, path, query)


async def _send(
    request: web.Request, container: Container, path: Path, query: Mapping[str, str]
) -> web.StreamResponse:
    """The file from where ``tailLines`` says, up to ``limitBytes``, and on while it grows if followed."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    follow = query.get("follow") == "true"
    left = int(query.get("limitBytes") or 2**62)
    tail = query.get("tailLines")
    offset = 0 if tail is None else _tail_offset(path, int(tail))
    while left > 0:
        # Asked before reading: what was written before the end is read in this same round.
        is_over = (
            not follow
            or container.place.log_file(container.state.restarts) != path
            or ("running" not in container.state.current)
        )
        while left > 0 and (chunk := _read(path, offset, min(CHUNK_BYTES, left))):
            await response.write(chunk)
            offset, left = offset + len(chunk), left - len(chunk)
        if is_over:
            break
        await asyncio.sleep(FOLLOW_POLL_SECONDS)
    await response.write_eof()
    return response


def _read(path: Path, offset: int, limit: int) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(limit)


def _tail_offset(path: Path, lines: int) -> int:
    """Where the last ``lines`` lines begin."""
    end = position = path.stat().st_size
    block, tail = CHUNK_BYTES, b""
    while position > 0 and tail.rstrip(b"\n").count(b"\n") < lines:
        position = max(0, end - block)
        tail = _read(path, position, end - position)
        block *= 4
    if lines == 0:
        return end
    kept = tail.splitlines(keepends=True)[-lines:]
    return end - sum(len(line) for line in kept)


def _is_api_server(request: web.Request) -> bool:
    transport = request.transport
    peer = transport.get_extra_info("peercert") if transport else None
    subject = {key: value for part in (peer or {}).get("subject", ()) for key, value in part}
    return subject.get("commonName") == API_SERVER_NAME


def _why_nothing(pod: str, container: Container) -> str:
    name = container.spec["name"]
    (kind, details), *_ = container.state.current.items()
    if kind == "waiting":
        return f'container "{name}" in pod "{pod}" is waiting to start: {details.get("reason")}'
    return f'container "{name}" in pod "{pod}" has no such log ({kind}: {details.get("reason", "")})'
