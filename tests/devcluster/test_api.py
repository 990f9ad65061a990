"""The API client loses no change, whatever happens to its watch; tokens are renewed in time."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hack.devcluster.api import Api, ApiError
from hack.devcluster.identity import Identity
from hack.devcluster.volumes import PodVolumes
from tests.devcluster.builders import Object, bound_pod

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def with_server(handler: Handler, use: Callable[[Api], Awaitable[None]]) -> None:
    """Run ``use`` with a client of a server that answers every request by ``handler``."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with Api(f"http://127.0.0.1:{runner.addresses[0][1]}", ssl.create_default_context()) as api:
            await asyncio.wait_for(use(api), 30)
    finally:
        await runner.cleanup()


def item(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def line(kind: str, found: Object) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def test_follow_survives_cuts_and_expiry() -> None:
    """A watch that ends is continued; one that is cut in a line, or expires, leads to a new list."""
    asked: list[str] = []
    big = item("big", 3) | {"data": "x" * 300_000}
    streams = [
        [line("ADDED", item("b", 2)), line("BOOKMARK", item("", 9))],
        [line("ADDED", big)[:-5]],
        [line("MODIFIED", item("a", 12)), line("ERROR", {"kind": "Status", "code": 410, "metadata": {}})],
        [line("DELETED", big)],
    ]

    async def serve(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            asked.append("list")
            version = str(10 * asked.count("list"))
            return web.json_response({"metadata": {"resourceVersion": version}, "items": [item("a", 1)]})
        asked.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        chunks = streams.pop(0)
        for chunk in chunks:
            await response.write(chunk)
        if not chunks[-1].endswith(b"\n") and request.transport is not None:
            request.transport.close()
        return response

    seen: list[tuple[str, Any]] = []

    async def use(api: Api) -> None:
        async for kind, found in api.follow("/api/v1/things"):
            names = (
                [each["metadata"]["name"] for each in found] if kind == "SYNC" else found["metadata"]["name"]
            )
            seen.append((kind, names))
            if kind == "DELETED":
                return

    asyncio.run(with_server(serve, use))
    assert seen == [
        ("SYNC", ["a"]),
        ("ADDED", "b"),
        ("SYNC", ["a"]),
        ("MODIFIED", "a"),
        ("SYNC", ["a"]),
        ("DELETED", "big"),
    ]
    assert asked == ["list", "10", "9", "list", "20", "list", "30"]


def test_a_refusal_has_the_servers_words() -> None:
    async def serve(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "not for you"}, status=403)

    async def use(api: Api) -> None:
        with pytest.raises(ApiError, match="not for you") as refused:
            await api.get("/api/v1/secrets")
        assert refused.value.status == 403

    asyncio.run(with_server(serve, use))


def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    issued: list[Object] = []
    clock = [1000.0]

    async def serve(request: web.Request) -> web.StreamResponse:
        issued.append(await request.json())
        return web.json_response({"status": {"token": f"token-{len(issued)}"}}, status=201)

    source = {"serviceAccountToken": {"audience": "progress", "path": "token", "expirationSeconds": 600}}
    pod = bound_pod(volumes=[{"name": "t", "projected": {"sources": [source]}}])
    file = tmp_path / "t" / "token"

    async def use(api: Api) -> None:
        mounted = PodVolumes(api, pod, tmp_path, tmp_path, Identity(None, (), ""), lambda: clock[0])
        await mounted.mount()
        clock[0] += 479
        await mounted.refresh()
        assert file.read_text() == "token-1"
        clock[0] += 2
        await mounted.refresh()
        assert file.read_text() == "token-2"

    asyncio.run(with_server(serve, use))
    assert file.resolve().stat().st_mode & 0o777 == 0o600
    assert len(issued) == 2
    assert issued[0]["spec"] == {
        "audiences": ["progress"],
        "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "one", "uid": "12345678-aaaa"},
    }
