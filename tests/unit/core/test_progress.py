"""The book of progress posts: newest report, points of the curve, bounded memory."""

from __future__ import annotations

from typing import Any

from tests.builders import at
from tunewright.core.outcome import timestamp
from tunewright.core.progress import HISTORY_POINTS, ProgressBook
from tunewright_trainer.contract import ProgressPost


def post(percent: int | None = None, **ours: Any) -> ProgressPost:
    status: dict[str, Any] = {"progressPercentage": percent, "estimatedRemainingSeconds": 60}
    if ours:
        status["tunewright"] = ours
    return ProgressPost.model_validate({"trainerStatus": status})


def test_a_report_holds_what_was_posted() -> None:
    report = ProgressBook().record("job", "pod", post(40, step=4, loss=2.0), at(1))
    assert (report.percent, report.remaining_seconds, report.pod_uid) == (40, 60, "pod")
    assert report.values == {"step": 4, "loss": 2.0}
    assert report.received_at == report.advanced_at == timestamp(at(1))


def test_a_stock_trainer_posts_no_step() -> None:
    assert ProgressBook().record("job", "pod", post(40), at(1)).values == {}


def test_the_same_step_again_is_no_advance() -> None:
    book = ProgressBook()
    book.record("job", "pod", post(step=4), at(1))
    again = book.record("job", "pod", post(step=4), at(9))
    assert (again.received_at, again.advanced_at) == (timestamp(at(9)), timestamp(at(1)))
    assert book.record("job", "pod", post(step=5), at(10)).advanced_at == timestamp(at(10))
    assert book.record("job", "pod-2", post(step=5), at(20)).advanced_at == timestamp(at(20))


def test_points_come_in_order_and_a_restart_takes_back() -> None:
    book = ProgressBook()
    for step in (1, 2, 3):
        book.record("job", "pod", post(step=step, loss=float(step)), at(step))
    book.record("job", "pod-2", post(step=2, loss=9.0), at(9))
    assert book.points("job") == ((1, 1.0, None), (2, 9.0, None))


def test_a_validation_loss_is_a_point_once() -> None:
    book = ProgressBook()
    book.record("job", "pod", post(step=1, loss=1.0, eval_loss=1.5), at(1))
    book.record("job", "pod", post(step=2, loss=0.9, eval_loss=1.5), at(2))
    assert book.points("job") == ((1, 1.0, 1.5), (2, 0.9, None))


def test_jobs_are_kept_apart_and_forgotten() -> None:
    book = ProgressBook()
    book.record("a", "pod", post(step=1, loss=1.0), at(1))
    book.record("b", "pod", post(step=7, loss=1.0), at(1))
    book.forget("a")
    assert book.report("a") is None
    assert book.points("a") == ()
    assert book.points("b") == ((7, 1.0, None),)
    book.forget("never seen")


def test_memory_is_bounded() -> None:
    book = ProgressBook()
    for step in range(HISTORY_POINTS * 2):
        book.record("job", "pod", post(step=step, loss=1.0), at(step))
    assert len(book.points("job")) == HISTORY_POINTS
    assert book.points("job")[-1][0] == HISTORY_POINTS * 2 - 1
