"""The loss curve and progress: merged over restarts, thinned evenly, written only when there is news."""

from __future__ import annotations

import math
import random
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.builders import NOW, at, make_attempt, make_report
from tunewright.api.status import CURVE_POINTS
from tunewright.core.curve import (
    last_advance,
    merged_curve,
    progress_status,
    seconds_until_due,
    sound,
    thinned,
)
from tunewright.core.outcome import timestamp


def test_new_points_are_added() -> None:
    curve = merged_curve({}, [(1, 3.0, None), (2, 2.5, 2.75)])
    assert curve == {"steps": [1, 2], "loss": [3.0, 2.5], "evalSteps": [2], "evalLoss": [2.75]}
    assert merged_curve(curve, [(3, 2.0, None)])["loss"] == [3.0, 2.5, 2.0]


def test_steps_done_again_replace_what_came_later() -> None:
    curve = merged_curve({}, [(step, float(step), step / 2) for step in range(1, 10)])
    resumed = merged_curve(curve, [(5, 50.0, None), (6, 60.0, 6.5)])
    assert (resumed["steps"], resumed["loss"][-2:]) == ([1, 2, 3, 4, 5, 6], [50.0, 60.0])
    assert resumed["evalSteps"] == [1, 2, 3, 4, 5, 6]


def test_the_same_points_again_change_nothing() -> None:
    points = [(step, float(step), None) for step in range(1, 60)]
    curve = merged_curve({}, points)
    assert merged_curve(curve, points) == curve
    assert merged_curve(curve, []) == curve


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_left_out(loss: float | None) -> None:
    assert merged_curve({}, [(1, loss, loss)])["steps"] == []


def test_a_step_below_zero_is_left_out() -> None:
    assert merged_curve({}, [(-1, 1.0, None)])["steps"] == []


def test_losses_are_rounded() -> None:
    assert merged_curve({}, [(1, 1.23456789, None)])["loss"] == [1.234568]


def test_few_points_are_not_thinned() -> None:
    points = [(step, 0.0) for step in range(CURVE_POINTS)]
    assert thinned(points) == points


@pytest.mark.parametrize("steps", [65, 100, 1000, 12_345])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_growing_curve_stays_spread_over_the_run(steps: int, batch: int) -> None:
    """However the points came, no stretch of the run is told by far fewer of them than another."""
    curve: dict[str, Any] = {}
    for first in range(1, steps + 1, batch):
        curve = merged_curve(
            curve, [(step, 1.0, None) for step in range(first, min(first + batch, steps + 1))]
        )
    kept = curve["steps"]
    assert len(kept) <= CURVE_POINTS
    assert (kept[0], kept[-1]) == (1, steps)
    widest = max(after - before for before, after in pairwise(kept))
    assert widest <= steps / (CURVE_POINTS - 2) * 4


def test_steps_only_rise_whatever_comes() -> None:
    rng = random.Random(1)
    curve: dict[str, Any] = {}
    for _ in range(500):
        start = rng.randint(0, 2000)
        curve = merged_curve(curve, [(start + i * rng.randint(0, 3), rng.random(), None) for i in range(9)])
        assert curve["steps"] == sorted(set(curve["steps"]))
        assert len(curve["steps"]) == len(curve["loss"]) <= CURVE_POINTS


def test_sound_keeps_what_a_status_may_hold() -> None:
    assert sound({"a": 0, "b": -1, "c": None, "d": math.nan, "e": -0.5, "f": "x"}) == {
        "a": 0,
        "e": -0.5,
        "f": "x",
    }


STORED = {"attempt": 1, "step": 10, "percent": 10, "updatedTime": timestamp(NOW)}


@pytest.mark.parametrize(
    ("stored", "report", "due"),
    [
        ({}, make_report("pod", 10), 0),
        (STORED | {"attempt": 0}, make_report("pod", 10, received=at(1)), 0),
        (STORED, make_report("pod", 10, received=at(500)), None),
        (STORED, make_report("pod", 11, received=at(10)), 20),
        (STORED, make_report("pod", 11, received=at(31)), -1),
        (STORED, make_report("pod", None, percent=10, received=at(31)), None),
        (STORED, make_report("pod", None, percent=11, received=at(31)), -1),
        (STORED, make_report("pod", 9, received=at(-100)), 0),
        (STORED | {"updatedTime": "?"}, make_report("pod", 11), 0),
    ],
    ids=[
        "first", "first of an attempt", "same step", "new step, too early", "new step", "same percentage",
        "new percentage", "clock put back", "unreadable time",
    ],
)  # fmt: skip
def test_seconds_until_due(stored: dict[str, Any], report: Any, due: float | None) -> None:
    assert seconds_until_due(stored, report, 1, 30.0) == due


def test_progress_status() -> None:
    report = make_report(
        "pod",
        50,
        percent=50,
        remaining_seconds=90,
        tokens_per_second=1000.0,
        last_checkpoint_step=40,
        epoch=0.5,
    )
    assert progress_status({"evalLoss": 2.5}, report, attempt=2, ranks=4) == {
        "step": 50,
        "totalSteps": 100,
        "steps": "50/100",
        "epoch": 0.5,
        "percent": 50,
        "loss": 2.0,
        "evalLoss": 2.5,
        "tokensPerSecond": 1000.0,
        "tokensPerSecondPerGpu": 250.0,
        "estimatedCompletionTime": timestamp(at(90)),
        "lastCheckpointStep": 40,
        "attempt": 2,
        "updatedTime": timestamp(NOW),
    }


def test_what_no_status_may_hold_is_not_taken_over() -> None:
    report = make_report("pod", -3, loss=math.nan, grad_norm=math.inf)
    assert progress_status({"step": 4, "loss": 1.0}, report, 1, 1)["step"] == 4
    assert "gradNorm" not in progress_status({}, report, 1, 1)


@pytest.mark.parametrize(
    ("progress", "report", "moment"),
    [
        ({}, None, at(5)),
        (STORED | {"updatedTime": timestamp(at(60))}, None, at(60)),
        (STORED | {"updatedTime": timestamp(at(60)), "attempt": 0}, None, at(5)),
        (STORED, make_report("pod", 11, received=at(99), advanced=at(90)), at(90)),
        (STORED, make_report("pod", 10, received=at(99), advanced=at(90)), at(5)),
        ({}, make_report("pod", 10, received=at(99), advanced=at(90)), at(90)),
    ],
    ids=["begun", "stored", "stored of an earlier attempt", "news", "the stored step again", "first report"],
)
def test_last_advance(progress: dict[str, Any], report: Any, moment: datetime) -> None:
    attempt = make_attempt(started=at(5))
    assert last_advance({"progress": progress}, attempt, report) == moment


def test_last_advance_is_unknown_without_a_time() -> None:
    assert last_advance({}, {"number": 1, "startedAt": "?"}, None) is None
