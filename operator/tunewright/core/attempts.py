"""The attempts of a job in its status: which one is current, how one is opened and closed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tunewright.api.status import ATTEMPT_ENTRIES
from tunewright.core.failures import Blame, Verdict
from tunewright.core.outcome import MESSAGE_CHARACTERS, timestamp

COMPLETED = "Completed"
SUSPENDED = "Suspended"

Attempt = Mapping[str, Any]


def last(status: Mapping[str, Any]) -> Attempt | None:
    """The newest attempt, open or ended."""
    attempts = status.get("attempts") or []
    return attempts[-1] if attempts else None


def is_open(attempt: Attempt | None) -> bool:
    """Whether ``attempt`` is still under way."""
    return attempt is not None and "endedAt" not in attempt


def completed(status: Mapping[str, Any]) -> bool:
    """Whether training is done."""
    attempt = last(status)
    return attempt is not None and attempt.get("reason") == COMPLETED


def opened(status: Mapping[str, Any], now: datetime, number: int | None = None) -> list[Attempt]:
    """The attempts with the next one begun (or the one of ``number``); only the newest are kept."""
    previous = last(status)
    if number is None:
        number = previous["number"] + 1 if previous else 1
    return [*(status.get("attempts") or []), {"number": number, "startedAt": timestamp(now)}][
        -ATTEMPT_ENTRIES:
    ]


def closed(
    status: Mapping[str, Any], now: datetime, verdict: Verdict | None, reason: str = ""
) -> list[Attempt]:
    """The attempts with the newest one ended, by ``verdict`` or for ``reason``.

    What the verdict doesn't know of step and checkpoint is taken from status.progress.
    """
    attempts = list(status["attempts"])
    progress = status.get("progress") or {}
    reported = progress if progress.get("attempt") == attempts[-1]["number"] else {}
    end: dict[str, Any] = {
        "step": reported.get("step"),
        "lastCheckpointStep": progress.get("lastCheckpointStep"),
        "endedAt": timestamp(now),
        "reason": reason,
    }
    if verdict is not None:
        end |= {"reason": verdict.reason, "message": verdict.sentence[:MESSAGE_CHARACTERS]}
        told = {
            "rank": verdict.rank,
            "step": verdict.step,
            "lastCheckpointStep": verdict.last_checkpoint_step,
        }
        end |= {key: value for key, value in told.items() if value is not None}
    attempts[-1] = {**attempts[-1], **{key: value for key, value in end.items() if value is not None}}
    return attempts


def counted(status: Mapping[str, Any], blame: Blame) -> dict[str, int]:
    """status.restarts with one more restart on the account of ``blame``."""
    counts = {"software": 0, "infrastructure": 0, **(status.get("restarts") or {})}
    key = "infrastructure" if blame is Blame.INFRASTRUCTURE else "software"
    counts[key] += 1
    return counts
