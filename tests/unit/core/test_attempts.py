"""Attempts in the status: opened, closed, counted."""

from __future__ import annotations

from typing import Any

from tests.builders import NOW, at, make_attempt
from tunewright.api.status import ATTEMPT_ENTRIES
from tunewright.core import attempts
from tunewright.core.failures import Blame, Verdict
from tunewright.core.outcome import MESSAGE_CHARACTERS, timestamp


def test_the_first_attempt_is_number_one() -> None:
    assert attempts.opened({}, NOW) == [{"number": 1, "startedAt": timestamp(NOW)}]


def test_numbers_go_on_though_old_attempts_are_dropped() -> None:
    status: dict[str, Any] = {}
    for _ in range(ATTEMPT_ENTRIES + 3):
        status["attempts"] = attempts.opened(status, NOW)
    numbers = [attempt["number"] for attempt in status["attempts"]]
    assert numbers == list(range(4, ATTEMPT_ENTRIES + 4))


def test_an_attempt_of_a_given_number() -> None:
    assert attempts.opened({"attempts": [make_attempt()]}, NOW, 5)[-1]["number"] == 5


def test_open_and_completed() -> None:
    assert not attempts.is_open(None)
    assert attempts.is_open(make_attempt())
    assert not attempts.is_open(make_attempt(reason="NodeLost"))
    assert not attempts.completed({})
    assert not attempts.completed({"attempts": [make_attempt(reason="Completed"), make_attempt(2)]})
    assert attempts.completed(
        {"attempts": [make_attempt(reason="NodeLost"), make_attempt(2, reason="Completed")]}
    )


def test_closed_by_a_verdict() -> None:
    verdict = Verdict(
        "NaNLoss", Blame.USER, "NaN at rank 0.", "Lower it.", rank=0, step=40, last_checkpoint_step=30
    )
    status = {"attempts": [make_attempt()], "progress": {"attempt": 1, "step": 38, "lastCheckpointStep": 20}}
    assert attempts.closed(status, at(9), verdict) == [
        make_attempt()
        | {
            "endedAt": timestamp(at(9)),
            "reason": "NaNLoss",
            "message": "NaN at rank 0. Lower it.",
            "rank": 0,
            "step": 40,
            "lastCheckpointStep": 30,
        }
    ]


def test_closed_with_what_was_reported() -> None:
    status = {"attempts": [make_attempt()], "progress": {"attempt": 1, "step": 38, "lastCheckpointStep": 20}}
    closed = attempts.closed(status, at(9), None, "Suspended")[-1]
    assert (closed["reason"], closed["step"], closed["lastCheckpointStep"]) == ("Suspended", 38, 20)
    assert "message" not in closed


def test_an_earlier_attempt_s_step_is_not_this_one_s() -> None:
    status = {
        "attempts": [make_attempt(reason="NodeLost"), make_attempt(2)],
        "progress": {"attempt": 1, "step": 38, "lastCheckpointStep": 20},
    }
    first, second = attempts.closed(status, at(9), None, "Suspended")
    assert first == make_attempt(reason="NodeLost")
    assert "step" not in second
    assert second["lastCheckpointStep"] == 20


def test_a_long_message_is_cut() -> None:
    verdict = Verdict("InternalError", Blame.SOFTWARE, "x" * 5000)
    closed = attempts.closed({"attempts": [make_attempt()]}, NOW, verdict)[-1]
    assert len(closed["message"]) == MESSAGE_CHARACTERS


def test_the_stored_attempts_are_left_alone() -> None:
    status = {"attempts": [make_attempt()]}
    attempts.closed(status, NOW, None, "Suspended")
    attempts.opened(status, NOW)
    assert status == {"attempts": [make_attempt()]}


def test_restarts_are_counted_apart() -> None:
    assert attempts.counted({}, Blame.SOFTWARE) == {"software": 1, "infrastructure": 0}
    status = {"restarts": {"software": 1, "infrastructure": 4}}
    assert attempts.counted(status, Blame.INFRASTRUCTURE) == {"software": 1, "infrastructure": 5}
    assert status["restarts"]["infrastructure"] == 4
