"""Who leads, when, and who is kept from it; on virtual time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cluster.virtual_time import now, run
from tunewright.cluster.errors import AlreadyExists, Conflict, NotFound, Unreachable
from tunewright.cluster.lease import Elector, LeadershipLost, LeaseTiming
from tunewright.core import names


class LeaseServer:
    """The API server as far as one Lease goes: versions, conflicts, and being away."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away_for: set[str] = set()
        self.slow_seconds = 0.0
        self.writes = 0

    def client_of(self, identity: str) -> Any:
        return _LeaseClient(self, identity)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


class _LeaseClient:
    def __init__(self, server: LeaseServer, identity: str) -> None:
        self._server = server
        self._identity = identity

    async def get(self, *_: Any) -> dict[str, Any]:
        await self._arrive()
        if self._server.lease is None:
            raise NotFound(404, "NotFound", "")
        return copy.deepcopy(self._server.lease)

    async def create(self, _: Any, lease: dict[str, Any]) -> dict[str, Any]:
        await self._arrive()
        if self._server.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "")
        return self._store(lease)

    async def replace(self, _: Any, lease: dict[str, Any]) -> dict[str, Any]:
        await self._arrive()
        if lease["metadata"]["resourceVersion"] != str(self._server.version):
            raise Conflict(409, "Conflict", "")
        return self._store(lease)

    async def _arrive(self) -> None:
        await asyncio.sleep(self._server.slow_seconds)
        if self._identity in self._server.away_for:
            raise Unreachable("away")

    def _store(self, lease: dict[str, Any]) -> dict[str, Any]:
        server = self._server
        server.version += 1
        server.writes += 1
        lease = copy.deepcopy(lease)
        lease["metadata"]["resourceVersion"] = str(server.version)
        server.lease = lease
        return copy.deepcopy(lease)


def elector(server: LeaseServer, identity: str, clock: Callable[[], float] = now) -> Elector:
    return Elector(server.client_of(identity), "ns", "lease", identity, LeaseTiming(15, 10, 2), clock)


def test_the_first_takes_the_lease_at_once_and_renews_it_without_reading() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        assert not one.is_leader()
        await one.acquire()
        assert now() == 0
        assert one.is_leader()
        holding = asyncio.create_task(one.hold())
        await asyncio.sleep(60)
        assert not holding.done()
        assert server.spec["holderIdentity"] == "one"
        assert server.spec["leaseTransitions"] == 0
        assert 25 <= server.writes <= 40
        holding.cancel()

    run(scenario())


def test_a_standby_waits_for_the_whole_lease_on_its_own_clock() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()  # and dies
        server.spec["renewTime"] = "2001-01-01T00:00:00.000000Z"  # whatever clock it had
        await two.acquire()
        assert 15 <= now() <= 20
        assert server.spec["leaseTransitions"] == 1
        assert server.spec["acquireTime"] == server.spec["renewTime"]

    run(scenario())


def test_a_lease_that_is_renewed_is_never_taken() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(two.acquire(), 300)
        assert two.leader == "one"
        holding.cancel()

    run(scenario())


def test_a_released_lease_is_taken_within_a_retry() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(3)
        await one.release()
        assert not one.is_leader()
        released = now()
        await waiting
        assert now() - released <= 2.4 + 0.1

    run(scenario())


def test_losing_touch_ends_leadership_before_anyone_else_can_lead() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        taking = asyncio.create_task(two.acquire())
        await asyncio.sleep(30)
        server.away_for.add("one")
        cut_off = now()
        with pytest.raises(LeadershipLost, match="could not be renewed for 10 s"):
            await holding
        lost = now()
        assert not taking.done()
        assert lost - cut_off <= 10 + 2.4 + 0.1
        await taking
        assert now() > lost

    run(scenario())


def test_a_blip_shorter_than_the_deadline_is_survived() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        for _ in range(5):
            server.away_for.add("one")
            await asyncio.sleep(6)
            server.away_for.clear()
            await asyncio.sleep(6)
        assert not holding.done()
        assert one.is_leader()
        holding.cancel()

    run(scenario())


def test_a_process_that_was_stopped_knows_at_once_that_it_may_not_write() -> None:
    """SIGSTOP: the monotonic clock goes on, and no code runs that could tell the elector."""

    async def scenario() -> None:
        server = LeaseServer()
        skipped = 0.0
        one = elector(server, "one", lambda: now() + skipped)
        await one.acquire()
        assert one.is_leader()
        skipped = 20.0
        assert not one.is_leader()

    run(scenario())


def test_a_slow_server_counts_from_when_the_renewal_was_sent() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        server.slow_seconds = 2.0
        await one.acquire()  # a read and a write: 4 s
        assert now() == 4
        await asyncio.sleep(6.5)
        assert not one.is_leader()

    run(scenario())


def test_a_deposed_leader_cannot_renew_with_what_it_remembers() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one = elector(server, "one")
        await one.acquire()
        assert server.lease is not None
        taken = copy.deepcopy(server.lease)
        taken["spec"]["holderIdentity"] = "two"
        await server.client_of("two").replace(None, taken)
        with pytest.raises(LeadershipLost, match="held by two"):
            await one.hold()
        assert server.spec["holderIdentity"] == "two"
        await one.release()
        assert server.spec["holderIdentity"] == "two", "only a lease of one's own is released"

    run(scenario())


def test_two_that_create_at_once_do_not_both_lead() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        server.slow_seconds = 0.1
        electors = [elector(server, str(index)) for index in range(5)]
        tasks = [asyncio.create_task(e.acquire()) for e in electors]
        await asyncio.sleep(5)
        assert sum(e.is_leader() for e in electors) == 1
        for task in tasks:
            task.cancel()

    run(scenario())


def test_the_leader_tells_where_it_takes_progress_and_takes_that_back_at_its_end() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two = elector(server, "one"), elector(server, "two")
        one.progress_address, two.progress_address = "10.0.0.1:8443", "10.0.0.2:8443"
        await one.acquire()
        assert server.lease is not None
        marked = copy.deepcopy(server.lease)
        marked["metadata"]["annotations"]["somebody/else"] = "kept"
        await server.client_of("somebody").replace(None, marked)
        holding = asyncio.create_task(one.hold())
        taking = asyncio.create_task(two.acquire())
        await asyncio.sleep(8)
        assert (two.leader, two.leader_address) == ("one", "10.0.0.1:8443")
        holding.cancel()
        taking.cancel()
        await one.release()
        assert server.lease["metadata"]["annotations"] == {"somebody/else": "kept"}
        await two.acquire()
        assert two.leader_address == "10.0.0.2:8443"
        assert server.lease["metadata"]["annotations"] == {
            "somebody/else": "kept",
            names.ANNOTATION_PROGRESS_ADDRESS: "10.0.0.2:8443",
        }

    run(scenario())


def test_an_address_of_an_earlier_leader_is_not_that_of_one_without() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        one, two, three = elector(server, "one"), elector(server, "two"), elector(server, "three")
        one.progress_address = "10.0.0.1:8443"
        await one.acquire()  # and dies
        await two.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(three.acquire(), 5)
        assert (three.leader, three.leader_address) == ("two", "")

    run(scenario())
