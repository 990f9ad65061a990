"""The cache equals the server's state again after every fault that a watch is known to have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving, until
from tunewright.cluster.informer import Informer
from tunewright.cluster.resources import PODS


def pod(name: str, **status: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": name},
        "status": status,
    }


class Scene:
    """A server, an informer that watches its pods, and what the informer told."""

    def __init__(self, server: ApiServer, informer: Informer, told: list[tuple[str, str]]) -> None:
        self.server = server
        self.informer = informer
        self.told = told

    def cached(self) -> dict[str, dict[str, Any]]:
        return {manifest["metadata"]["name"]: manifest for manifest in self.informer.store}

    def stored(self) -> dict[str, dict[str, Any]]:
        return {name: manifest for (_, _, name), manifest in self.server.objects.items()}

    async def agree(self) -> None:
        await until(
            lambda: _versions(self.cached()) == _versions(self.stored()), "cache equals the server's state"
        )


def _versions(manifests: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: manifest["metadata"]["resourceVersion"] for name, manifest in manifests.items()}


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[Scene]:
    told: list[tuple[str, str]] = []

    def on_change(old: Any, new: Any) -> None:
        told.append((old["metadata"]["name"] if old else "", new["metadata"]["name"] if new else ""))

    async with serving() as server, client_of(server) as client:
        await server.put("pods", pod("first"))
        await server.put("pods", pod("second"))
        informer = Informer(client, PODS, on_change=on_change, **options)
        task = asyncio.create_task(informer.run())
        try:
            await asyncio.wait_for(informer.synced.wait(), 20)
            await until(lambda: len(server.open_watches) == 1, "the watch is open")
            yield Scene(server, informer, told)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_lists_then_follows_additions_changes_and_deletions() -> None:
    async def scenario() -> None:
        async with scene() as s:
            assert s.told == [("", "first"), ("", "second")]
            await s.server.put("pods", pod("third"))
            await s.server.put("pods", pod("first", phase="Running"))
            await s.server.drop("pods", "ns", "second")
            await s.agree()
            assert s.told[2:] == [("", "third"), ("first", "first"), ("second", "")]
            assert s.cached()["first"]["status"] == {"phase": "Running"}
            assert s.cached()["third"]["kind"] == "Pod"
            assert s.server.count("GET", "watch=") == 1
            assert (s.informer.last_contact_seconds() or 0) < 5

    asyncio.run(scenario())


def test_lists_in_pages() -> None:
    async def scenario() -> None:
        async with scene(page_size=1) as s:
            assert set(s.cached()) == {"first", "second"}
            assert s.server.count("GET", "continue=1") == 1

    asyncio.run(scenario())


async def _expire(server: ApiServer) -> None:
    server.compact()
    server.cut_watches()


async def _error_event(server: ApiServer) -> None:
    error = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd went away"}
    line = json.dumps({"type": "ERROR", "object": error}).encode() + b"\n"
    server.faults.append(Fault("GET", watch=True, lines=[line]))
    server.cut_watches()


async def _cut_mid_line(server: ApiServer) -> None:
    half = json.dumps({"type": "DELETED", "object": server.objects[("pods", "ns", "first")]}).encode()
    server.faults.append(Fault("GET", watch=True, lines=[half[: len(half) // 2]]))
    server.cut_watches()


async def _garbage(server: ApiServer) -> None:
    server.faults.append(Fault("GET", watch=True, lines=[b"<html>a proxy's error page</html>\n"]))
    server.cut_watches()


async def _watch_refused(server: ApiServer) -> None:
    server.faults.append(Fault("GET", watch=True, status=429, headers={"Retry-After": "0.01"}, times=2))
    server.cut_watches()


async def _list_fails_too(server: ApiServer) -> None:
    server.faults.append(Fault("GET", watch=False, status=503, times=6))
    await _expire(server)


async def _continue_token_expires(server: ApiServer) -> None:
    server.faults.append(Fault("GET", watch=False, status=410, body={"reason": "Expired"}))
    await _expire(server)


async def _rights_lost_for_a_while(server: ApiServer) -> None:
    server.faults.append(Fault("GET", status=403, times=3))
    server.cut_watches()


async def _connection_cut(server: ApiServer) -> None:
    server.cut_watches()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(_connection_cut, id="connection cut"),
        pytest.param(_expire, id="410 on watch"),
        pytest.param(_error_event, id="ERROR event"),
        pytest.param(_cut_mid_line, id="cut in the middle of a line"),
        pytest.param(_garbage, id="something else than JSON"),
        pytest.param(_watch_refused, id="429 on watch"),
        pytest.param(_list_fails_too, id="503 on list"),
        pytest.param(_continue_token_expires, id="410 on list"),
        pytest.param(_rights_lost_for_a_while, id="403"),
    ],
)
def test_recovers_with_nothing_lost(fault: Callable[[ApiServer], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with scene() as s:
            # What happens while nobody watches: the fault is in place before the connection falls.
            s.server.log.clear()
            await fault(s.server)
            await s.server.drop("pods", "ns", "first")
            await s.server.put("pods", pod("third"))
            await s.server.put("pods", pod("second", phase="Running"))
            await s.agree()
            assert sorted(s.told[2:]) == [("", "third"), ("first", ""), ("second", "second")]
            await until(lambda: len(s.server.open_watches) == 1, "watches again")
            await s.server.put("pods", pod("fourth"))
            await s.agree()

    asyncio.run(scenario())


def test_no_more_than_a_page_of_the_list_is_held_whole() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        def strip(manifest: dict[str, Any]) -> dict[str, Any]:
            seen.append(manifest["metadata"]["name"])
            return {**manifest, "status": {"cut": True}}

        async with scene(page_size=1, strip=strip) as s:
            assert seen[:2] == ["first", "second"]
            # The store cuts each object once more: the list has done so before, or it would have held both.
            assert len(seen) == 4
            assert [manifest["status"] for manifest in s.cached().values()] == [{"cut": True}] * 2

    asyncio.run(scenario())


def test_a_deletion_that_only_a_list_can_show_is_told() -> None:
    async def scenario() -> None:
        async with scene() as s:
            del s.server.objects[("pods", "ns", "first")]  # no DELETED event will ever come
            s.server.version += 1
            await _expire(s.server)
            await s.agree()
            assert s.told[2:] == [("first", "")]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "lists"),
    [(429, 1), (500, 1), (503, 1), (400, 2), (403, 2)],
    ids=["busy", "internal error", "unavailable", "bad version", "no right to watch"],
)
def test_a_refused_watch_leads_to_a_list_unless_the_server_is_only_busy(status: int, lists: int) -> None:
    async def scenario() -> None:
        async with scene() as s:
            s.server.faults.append(Fault("GET", watch=True, status=status))
            s.server.cut_watches()
            await until(lambda: s.server.count("GET", "watch=") == 3, "watches again")
            assert s.server.count("GET", "/pods?limit") == lists

    asyncio.run(scenario())


def test_a_silent_connection_is_given_up_and_resumed_from_the_last_version() -> None:
    async def scenario() -> None:
        async with scene(stall_seconds=0.2) as s:
            s.server.faults.append(Fault("GET", watch=True, hang=True))
            s.server.cut_watches()
            await until(lambda: not s.server.faults, "the hanging watch is open")
            await s.server.put("pods", pod("third"))
            await s.agree()
            assert s.server.count("GET", "/pods?limit") == 1, "no second list is needed"

    asyncio.run(scenario())


def test_bookmarks_carry_the_version_over_a_cut() -> None:
    async def scenario() -> None:
        async with scene() as s:
            await s.server.bookmark("pods")
            await until(lambda: s.informer._version == str(s.server.version), "bookmark seen")
            s.server.compact()
            s.server.cut_watches()
            await until(lambda: s.server.count("GET", "watch=") == 2, "watches again")
            await s.server.put("pods", pod("third"))
            await s.agree()
            assert s.server.count("GET", "/pods?limit") == 1, "the bookmark's version was recent enough"

    asyncio.run(scenario())


def test_resync_lists_again_and_tells_of_every_object() -> None:
    # The watch's own time-out is whole seconds, so the server has to end it.
    async def scenario() -> None:
        async with scene(resync_seconds=0.1, notify_on_resync=True) as s:

            async def cut_often() -> None:
                while True:
                    s.server.cut_watches()
                    await asyncio.sleep(0.05)

            cutting = asyncio.create_task(cut_often())
            await until(lambda: s.told.count(("first", "first")) >= 2, "two resyncs")
            assert s.server.count("GET", "/pods?limit") >= 3
            cutting.cancel()

    asyncio.run(scenario())


def test_a_callback_that_raises_does_not_stop_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    def trip(old: Any, new: Any) -> None:
        raise RuntimeError("poison")

    async def scenario() -> None:
        async with serving() as server, client_of(server) as client:
            informer = Informer(client, PODS, on_change=trip)
            task = asyncio.create_task(informer.run())
            await asyncio.wait_for(informer.synced.wait(), 20)
            await server.put("pods", pod("a"))
            await until(lambda: informer.store.get("ns", "a") is not None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert "poison" in caplog.text


def test_an_object_larger_than_a_read_buffer_arrives_whole() -> None:
    async def scenario() -> None:
        async with scene() as s:
            await s.server.put("pods", pod("big", message="x" * 1_400_000))
            await s.agree()
            assert len(s.cached()["big"]["status"]["message"]) == 1_400_000

    asyncio.run(scenario())


def test_an_api_server_that_is_away_is_not_a_dead_informer() -> None:
    async def scenario() -> None:
        async with serving() as server:
            client = client_of(server)
        informer = Informer(client, PODS)  # the server is gone by now
        task = asyncio.create_task(informer.run())
        await until(lambda: informer.idle_seconds() < 1)
        assert informer.last_contact_seconds() is None
        assert not informer.synced.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.transport.close()

    asyncio.run(scenario())
