"""When a run saves and evaluates, and what its curve and its logs keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright_trainer.callbacks import SaveSchedule, evaluation_due
from tunewright_trainer.contract import CheckpointConfig, EvaluationConfig
from tunewright_trainer.train.final import CURVE_POINTS, Curve
from tunewright_trainer.train.logs import tail
from tunewright_trainer.train.memory import out_of_memory_kills


def due_steps(every_steps: int | None, every_epochs: int | None, total_steps: int = 12) -> list[int]:
    config = EvaluationConfig(every_steps=every_steps, every_epochs=every_epochs)
    return [step for step in range(1, total_steps + 1) if evaluation_due(config, step, 4, total_steps)]


@pytest.mark.parametrize(
    ("every_steps", "every_epochs", "expected"),
    [(5, None, [5, 10, 12]), (None, 1, [4, 8, 12]), (None, 2, [8, 12]), (None, None, [12])],
)
def test_evaluations(every_steps: int | None, every_epochs: int | None, expected: list[int]) -> None:
    assert due_steps(every_steps, every_epochs) == expected


def test_saves_by_steps() -> None:
    saves = SaveSchedule(CheckpointConfig(every_steps=3, every_minutes=None), clock=lambda: 0.0)
    assert [step for step in range(1, 10) if saves.due(step)] == [3, 6, 9]


def test_saves_by_minutes_since_the_last_save_of_any_kind() -> None:
    now = [0.0]
    saves = SaveSchedule(CheckpointConfig(every_steps=None, every_minutes=2), clock=lambda: now[0])
    now[0] = 119.0
    assert not saves.due(1)
    now[0] = 120.0
    assert saves.due(2)
    saves.saved()
    assert not saves.due(3)
    now[0] = 240.0
    assert saves.due(4)


def history(steps: int) -> list[dict[str, Any]]:
    trained = [{"step": step, "loss": 1 / step, "learning_rate": 0.1} for step in range(1, steps + 1)]
    return [{"step": 0, "eval_loss": 2.0}, *trained, {"step": steps, "eval_loss": 1.0}]


def test_a_short_curve_is_kept_whole() -> None:
    curve = Curve.of(history(5))
    assert curve.steps == [1, 2, 3, 4, 5]
    assert (curve.eval_steps, curve.eval_loss) == ([0, 5], [2.0, 1.0])


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    curve = Curve.of(history(100_001))
    assert len(curve.steps) <= CURVE_POINTS
    assert curve.steps[-1] == 100_001
    assert curve.loss[-1] == 1 / 100_001
    assert curve.steps == sorted(curve.steps)


def test_the_summary_that_ends_a_run_is_no_point_of_the_curve() -> None:
    assert Curve.of([*history(2), {"step": 2, "train_loss": 9.0}]).loss == [1.0, 0.5]


def test_a_tail_starts_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first line\nsecond line\nthird line\n")
    assert tail(path, 16) == b"third line\n"
    assert tail(path) == path.read_bytes()


def test_kills_for_memory_are_read_from_the_cgroup(tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    path.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n")
    assert out_of_memory_kills(path) == 3
    assert out_of_memory_kills(tmp_path / "none") == 0
