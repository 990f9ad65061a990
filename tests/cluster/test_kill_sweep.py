"""kill -9 right after any write of the operator: the next one ends the life as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster_support.kill_proxy import Moment
from tests.cluster_support.stories import Interrupted, Story, Whole
from tests.cluster_support.sweep import Life, Sweep, one_of_each_kind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

STORIES: dict[str, Story] = {"whole": Whole(), "interrupted": Interrupted()}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with Sweep(tmp_path_factory.mktemp("sweep")) as made:
        yield made


def check_killed_after(
    sweep: Sweep, story: Story, numbers: list[int], undisturbed: Life, moment: Moment
) -> None:
    """Live ``story`` once for each of ``numbers``, killed after that write, and compare with ``undisturbed``.

    How many writes a life takes differs by some: repeated events, counts of ready pods. A life that ended
    before its write came is compared all the same, but most lives must have been cut.
    """
    killed = 0
    for number in numbers:
        life = sweep.live(story, number, moment)
        writes = sweep.proxy.writes
        if sweep.proxy.killed:
            killed += 1
            where = f"killed after write {number} ({writes[number - 1].kind}), {moment}"
        else:
            where = f"undisturbed, since write {number} of {len(writes)} never came"
            assert number > len(writes), f"not killed after write {number}"
        assert life.created == undisturbed.created, where
        assert life.pods == undisturbed.pods, where
        assert life.deleted.keys() == undisturbed.deleted.keys(), where
        assert life.objects == undisturbed.objects, where
        assert life.status == undisturbed.status, where
    assert killed >= 0.75 * len(numbers)


@pytest.mark.parametrize("name", STORIES)
def test_an_undisturbed_life_creates_each_object_once(sweep: Sweep, name: str) -> None:
    life = sweep.live(STORIES[name])
    assert set(life.created.values()) == {1}
    workers = {pod: count for pod, count in life.pods.items() if "-a" in pod}
    attempts = 1 if name == "whole" else 2
    assert len(workers) == 2 * attempts
    assert set(life.pods.values()) == {1}
    kinds = {write.kind for write in sweep.proxy.writes}
    assert {"patch finetunejobs", "patch finetunejobs/status", "create jobs", "create events"} <= kinds


@pytest.mark.parametrize("name", STORIES)
def test_killed_once_after_each_kind_of_write(sweep: Sweep, name: str) -> None:
    undisturbed = sweep.live(STORIES[name])
    numbers = one_of_each_kind(sweep.proxy.writes)
    assert len(numbers) >= 6
    check_killed_after(sweep, STORIES[name], numbers, undisturbed, "unanswered")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["unanswered", "answered"])
@pytest.mark.parametrize("name", STORIES)
def test_killed_after_every_write(sweep: Sweep, name: str, moment: Moment) -> None:
    undisturbed = sweep.live(STORIES[name])
    count = len(sweep.proxy.writes)
    check_killed_after(sweep, STORIES[name], list(range(1, count + 1)), undisturbed, moment)
