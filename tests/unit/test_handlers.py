"""kopf's part, against a server on a socket: hands over every change, writes nothing, comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from tests.unit.cluster.api_server import ApiServer, Fault, serving, until
from tunewright.cluster.credentials import AuthorizationSource, Credentials
from tunewright.core import names
from tunewright.handlers import KopfThread, apply_settings


def _resource(plural: str, kind: str, namespaced: bool = True) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return {
        "name": plural,
        "singularName": kind.lower(),
        "namespaced": namespaced,
        "kind": kind,
        "verbs": verbs,
    }


# kopf looks for namespaces and events even where it is to use neither.
DISCOVERY = {
    "/api/v1": {"resources": [_resource("namespaces", "Namespace", False), _resource("events", "Event")]},
    "/api": {"versions": ["v1"]},
    "/apis": {
        "groups": [
            {
                "name": names.GROUP,
                "versions": [{"groupVersion": names.API_VERSION, "version": names.VERSION}],
                "preferredVersion": {"groupVersion": names.API_VERSION, "version": names.VERSION},
            }
        ]
    },
    f"/apis/{names.API_VERSION}": {"resources": [_resource(names.PLURAL, names.KIND)]},
}


def job(name: str, **metadata: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, **metadata}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": {}}


def with_kopf(
    scenario: Callable[[ApiServer, list[tuple[str | None, str]], KopfThread], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with serving() as server:
            for path, answer in DISCOVERY.items():
                server.documents[path] = json.dumps(answer).encode()
            told: list[tuple[str | None, str]] = []
            credentials = Credentials(server.url, None, AuthorizationSource(lambda: "Bearer token"))
            thread = KopfThread(credentials, lambda kind, body: told.append((kind, body["metadata"]["name"])))
            await server.put("finetunejobs", job("first", finalizers=[names.FINALIZER]))
            thread.start()
            try:
                await until(lambda: told == [(None, "first")], "the first list")
                await scenario(server, told, thread)
            finally:
                await thread.stop()
            assert not thread.is_alive()
            writes = [entry for entry in server.requests if not entry.startswith("GET")]
            assert writes == [], "kopf writes nothing"
            assert all(headers["Authorization"] == "Bearer token" for headers in server.headers)

    asyncio.run(main())


def test_every_change_is_handed_over() -> None:
    async def scenario(server: ApiServer, told: list[Any], thread: KopfThread) -> None:
        await server.put("finetunejobs", job("second"))
        await until(lambda: ("ADDED", "second") in told)
        await server.drop("finetunejobs", "ns", "first")
        await until(lambda: ("DELETED", "first") in told)

    with_kopf(scenario)


def test_a_watch_error_that_ends_kopf_starts_it_again() -> None:
    async def scenario(server: ApiServer, told: list[Any], thread: KopfThread) -> None:
        await until(lambda: len(server.open_watches) == 1)
        error = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd went away"}
        line = json.dumps({"type": "ERROR", "object": error}).encode() + b"\n"
        server.faults.append(Fault("GET", watch=True, lines=[line]))
        server.cut_watches()
        await until(lambda: thread.restarts == 1, "kopf has ended and is started again")
        await server.put("finetunejobs", job("second"))
        await until(lambda: any(name == "second" for _, name in told), "it watches again")

    with_kopf(scenario)


def test_settings_that_must_hold() -> None:
    settings = kopf.OperatorSettings()
    apply_settings(settings)
    assert settings.persistence.finalizer != names.FINALIZER, "kopf would take ours off"
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert str(settings.watching.server_timeout).isdecimal(), "the API server refuses fractions"
    backoffs: Any = settings.networking.error_backoffs
    for _ in range(2):  # it is read anew for each request
        first = list(itertools.islice(backoffs, 1000))
        assert first[0] < 1
        assert first[-1] == 8.0
