"""client-go's contract, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.cluster.virtual_time import now, run
from tunewright.cluster.workqueue import QueueClosed, WorkQueue


def test_a_key_that_waits_is_merged() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for _ in range(3):
            queue.add("a")
        queue.add("b")
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        assert queue.stats.adds == 2

    run(scenario())


def test_a_key_is_never_worked_on_twice_at_once_and_runs_again_if_added_meanwhile() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        assert len(queue) == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 60)
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    run(scenario())


def test_many_workers_never_overlap_on_a_key_and_lose_none() -> None:
    async def scenario() -> None:
        queue: WorkQueue[int] = WorkQueue()
        busy: set[int] = set()
        wanted, seen = dict.fromkeys(range(5), 0), dict.fromkeys(range(5), 0)

        async def worker() -> None:
            while True:
                key = await queue.get()
                assert key not in busy
                busy.add(key)
                seen[key] = wanted[key]
                await asyncio.sleep(0.3)
                busy.remove(key)
                queue.done(key)

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker()) for _ in range(8)]
            for turn in range(200):
                wanted[turn % 5] = turn
                queue.add(turn % 5)
                await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            assert seen == wanted
            for task in workers:
                task.cancel()

    run(scenario())


def test_of_several_delays_the_earliest_wins() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 50)
        queue.add_after("a", 10)
        queue.add_after("a", 30)
        assert queue.delayed == 1
        await queue.get()
        assert now() == pytest.approx(10)
        queue.done("a")
        await asyncio.sleep(100)
        assert len(queue) == 0

    run(scenario())


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_a_delay_of_nothing_is_an_add(seconds: float) -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", seconds)
        assert len(queue) == 1

    run(scenario())


def test_back_off_doubles_up_to_the_cap_per_key_and_is_reset_by_forget() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue(jitter=0.0)
        delays = [queue.retry("a") for _ in range(16)]
        assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
        assert delays[-1] == 300
        assert queue.retry("b") == 0.05
        assert queue.failures("a") == 16
        queue.forget("a")
        assert queue.retry("a") == 0.05
        assert queue.stats.retries == 18

    run(scenario())


def test_back_off_survives_thousands_of_failures() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        delays = [queue.retry("a") for _ in range(5000)]
        assert max(delays) <= 360
        assert min(delays[20:]) >= 240
        assert len(set(delays[20:])) > 1000, "delays are jittered"

    run(scenario())


def test_retry_waits_at_least_as_long_as_the_server_asked() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.retry("a", at_least_seconds=17)
        await queue.get()
        assert now() == pytest.approx(17)

    run(scenario())


def test_longest_running_is_the_age_of_the_oldest_work() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert queue.longest_running_seconds() == 0
        for key in "ab":
            queue.add(key)
            await queue.get()
            await asyncio.sleep(5)
        assert queue.longest_running_seconds() == pytest.approx(10)
        queue.done("a")
        assert queue.longest_running_seconds() == pytest.approx(5)

    run(scenario())


def test_waiting_time_is_told() -> None:
    async def scenario() -> None:
        waits: list[float] = []
        queue: WorkQueue[str] = WorkQueue(on_wait=waits.append)
        queue.add("a")
        await asyncio.sleep(3)
        await queue.get()
        assert waits == [pytest.approx(3)]

    run(scenario())


def test_closing_wakes_all_workers_and_drops_what_waits() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        workers = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.add_after("a", 5)
        queue.close()
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [QueueClosed] * 3
        queue.add("b")
        await asyncio.sleep(10)
        assert len(queue) == 0

    run(scenario())


def test_a_key_is_not_lost_with_the_worker_that_was_woken_for_it() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        first = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
        assert await asyncio.wait_for(second, 1) == "a"

    run(scenario())
