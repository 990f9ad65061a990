"""Events add up, are bounded, and survive the loss of the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving
from tunewright.cluster.events import BURST, LONGEST_QUEUE, EventRecorder
from tunewright.core import names
from tunewright.core.model import Event

JOB = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND,
    "metadata": {"namespace": "ns", "name": "tune", "uid": "uid-1", "resourceVersion": "1"},
}
STARTED = Event("Normal", "Started", "It began.", "Train")


def with_recorder(scenario: Callable[[ApiServer, EventRecorder, list[float]], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = [0.0]
        async with serving() as server, client_of(server) as client:
            recorder = EventRecorder(client, "operator-0", clock=lambda: clock[0])
            writing = asyncio.create_task(recorder.run())
            await scenario(server, recorder, clock)
            writing.cancel()

    asyncio.run(main())


def stored(server: ApiServer) -> list[Any]:
    return [manifest for (plural, _, _), manifest in server.objects.items() if plural == "events"]


def test_an_event_says_who_about_what_and_why() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        recorder.record(JOB, STARTED)
        await recorder.flush(10)
        (event,) = stored(server)
        assert event["regarding"]["uid"] == "uid-1"
        assert (event["reason"], event["note"], event["type"]) == ("Started", "It began.", "Normal")
        assert event["reportingController"] == names.REPORTING_CONTROLLER
        assert event["reportingInstance"] == "operator-0"
        assert "series" not in event

    with_recorder(scenario)


def test_the_same_event_is_counted_and_another_is_another() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        for _ in range(3):
            recorder.record(JOB, STARTED)
        recorder.record(JOB, Event("Normal", "Started", "It began anew."))
        await recorder.flush(10)
        assert [event.get("series", {}).get("count") for event in stored(server)] == [3, None]
        assert server.count("POST") == 2

    with_recorder(scenario)


def test_an_event_of_an_earlier_process_is_counted_on() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        recorder.record(JOB, STARTED)
        await recorder.flush(10)
        async with client_of(server) as client:
            successor = EventRecorder(client, "operator-1")
            writing = asyncio.create_task(successor.run())
            successor.record(JOB, STARTED)
            await successor.flush(10)
            writing.cancel()
        (event,) = stored(server)
        assert event["series"]["count"] == 2

    with_recorder(scenario)


def test_an_event_that_expired_is_created_anew() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        recorder.record(JOB, STARTED)
        await recorder.flush(10)
        await server.drop("events", "ns", stored(server)[0]["metadata"]["name"])
        recorder.record(JOB, STARTED)
        await recorder.flush(10)
        (event,) = stored(server)
        assert "series" not in event

    with_recorder(scenario)


def test_a_flood_about_one_object_is_cut_and_others_are_heard() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        for index in range(BURST + 10):
            recorder.record(JOB, Event("Warning", "Flapping", f"No. {index}"))
        other = {**JOB, "metadata": {**JOB["metadata"], "name": "calm", "uid": "uid-2"}}  # type: ignore[dict-item]
        recorder.record(other, STARTED)
        await recorder.flush(10)
        assert len(stored(server)) == BURST + 1
        assert recorder.dropped == 10
        clock[0] += 300
        recorder.record(JOB, Event("Warning", "Flapping", "later"))
        recorder.record(JOB, Event("Warning", "Flapping", "too soon"))
        await recorder.flush(10)
        assert len(stored(server)) == BURST + 2

    with_recorder(scenario)


def test_long_notes_are_cut_to_what_the_server_takes() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        recorder.record(JOB, Event("Normal", "Started", "ü" * 2000))
        await recorder.flush(10)
        assert stored(server)[0]["note"] == "ü" * 512

    with_recorder(scenario)


def test_a_server_that_hangs_costs_events_and_nothing_else() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        server.gate = asyncio.Event()
        for index in range(LONGEST_QUEUE + 50):
            job = {**JOB, "metadata": {**JOB["metadata"], "uid": f"uid-{index}"}}  # type: ignore[dict-item]
            recorder.record(job, STARTED)
        assert 49 <= recorder.dropped <= 50
        await recorder.flush(0.05)
        server.gate.set()

    with_recorder(scenario)


def test_after_a_refusal_the_next_is_written() -> None:
    async def scenario(server: ApiServer, recorder: EventRecorder, clock: list[float]) -> None:
        server.faults.append(Fault("POST", status=403))
        recorder.record(JOB, STARTED)
        recorder.record(JOB, Event("Normal", "Ended", "It ended."))
        await recorder.flush(10)
        assert [event["reason"] for event in stored(server)] == ["Ended"]

    with_recorder(scenario)
