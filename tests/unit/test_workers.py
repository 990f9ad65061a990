"""When a key comes back: at once, later, after a back-off, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.unit.cluster.virtual_time import now, run
from tunewright.cluster.caches import JobKey
from tunewright.cluster.errors import ApiError, Conflict, Forbidden, NotLeader, Overloaded
from tunewright.cluster.workqueue import WorkQueue
from tunewright.workers import Workers

KEY = ("ns", "tune")


def at_work(
    reconcile: Callable[[str, str], Awaitable[float | None]],
    scenario: Callable[[WorkQueue[JobKey], list[str]], Awaitable[None]],
) -> None:
    async def main() -> None:
        outcomes: list[str] = []
        queue: WorkQueue[JobKey] = WorkQueue(jitter=0.0)
        workers = Workers(queue, reconcile, 4, lambda outcome, seconds: outcomes.append(outcome))
        task = asyncio.create_task(workers.run())
        await scenario(queue, outcomes)
        queue.close()
        await task

    run(main())


def test_done_and_requeued() -> None:
    answers = iter([30.0, 0.0, None])
    times: list[float] = []

    async def reconcile(namespace: str, name: str) -> float | None:
        assert (namespace, name) == KEY
        times.append(now())
        return next(answers)

    async def scenario(queue: WorkQueue[JobKey], outcomes: list[str]) -> None:
        queue.add(KEY)
        await asyncio.sleep(100)
        assert times == [0, 30, 30]
        assert outcomes == ["requeued", "requeued", "done"]

    at_work(reconcile, scenario)


@pytest.mark.parametrize(
    ("error", "first_pause", "outcome"),
    [
        pytest.param(Conflict(409, "Conflict", "changed"), 0.05, "conflict", id="conflict"),
        pytest.param(Overloaded(429, "TooManyRequests", "busy", None, 7.0), 7.0, "error", id="Retry-After"),
        pytest.param(NotLeader(), 0.05, "error", id="not leading for a moment"),
        pytest.param(ZeroDivisionError("a bug"), 0.05, "error", id="a bug"),
        pytest.param(
            Forbidden(403, "Forbidden", "", {"causes": [{"reason": "NamespaceTerminating"}]}),
            10.0,
            "error",
            id="namespace goes away",
        ),
    ],
)
def test_a_failure_backs_off_and_a_success_forgets_it(
    error: Exception, first_pause: float, outcome: str
) -> None:
    times: list[float] = []

    async def reconcile(namespace: str, name: str) -> float | None:
        times.append(now())
        if len(times) <= 2:
            raise error
        return None

    async def scenario(queue: WorkQueue[JobKey], outcomes: list[str]) -> None:
        queue.add(KEY)
        await asyncio.sleep(100)
        assert times[1] == pytest.approx(first_pause)
        assert times[2] - times[1] == pytest.approx(max(first_pause, 0.1))
        assert outcomes == [outcome, outcome, "done"]
        assert queue.failures(KEY) == 0

    at_work(reconcile, scenario)


def test_a_key_that_always_fails_does_not_hold_up_the_others() -> None:
    done: set[str] = set()

    async def reconcile(namespace: str, name: str) -> float | None:
        if name == "poison":
            raise RuntimeError("poison")
        done.add(name)
        return None

    async def scenario(queue: WorkQueue[JobKey], outcomes: list[str]) -> None:
        for name in ("poison", *map(str, range(50))):
            queue.add(("ns", name))
        await asyncio.sleep(1000)
        assert done == set(map(str, range(50)))
        assert outcomes.count("error") < 20

    at_work(reconcile, scenario)


def test_a_reconcile_that_hangs_is_given_up() -> None:
    calls = 0

    async def reconcile(namespace: str, name: str) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return None

    async def scenario(queue: WorkQueue[JobKey], outcomes: list[str]) -> None:
        queue.add(KEY)
        await asyncio.sleep(1000)
        assert outcomes == ["error", "done"]

    at_work(reconcile, scenario)


def test_a_conflict_that_does_not_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def reconcile(namespace: str, name: str) -> float | None:
        raise ApiError(409, "NameTaken", "Job ns/x belongs to somebody else")

    async def scenario(queue: WorkQueue[JobKey], outcomes: list[str]) -> None:
        queue.add(KEY)
        await asyncio.sleep(10)

    at_work(reconcile, scenario)
    assert "ns/tune: Job ns/x belongs to somebody else" in caplog.text
