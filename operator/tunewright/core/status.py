"""Shapes the status: conditions, phase, message, timeline. The only module that does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tunewright.api.status import TIMELINE_ENTRIES
from tunewright.core import lifecycle
from tunewright.core.lifecycle import LIFECYCLE, Phase, phase_of
from tunewright.core.outcome import MESSAGE_CHARACTERS, Outcome, timestamp

Condition = dict[str, Any]
Said = tuple[str, str, str]
"""Status, reason and message of a condition."""


def build(stored: Mapping[str, Any], generation: int, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """The whole status after ``outcome``.

    ``stored`` is the status as the API server has it: its transition times hold while nothing flips.
    """
    message = outcome.message[:MESSAGE_CHARACTERS]
    before = {condition["type"]: condition for condition in stored.get("conditions") or ()}
    conditions = [
        _condition(kind, said, before.get(kind), generation, now)
        for kind, said in _said(outcome, message, before).items()
    ]
    status = {key: value for key, value in outcome.status.items() if value not in (None, [], {})}
    status |= {
        "observedGeneration": generation,
        "conditions": conditions,
        "phase": str(phase_of({condition["type"]: condition for condition in conditions})),
        "message": message,
        "timeline": _timeline(stored, outcome, message, now),
    }
    status.setdefault("startedAt", timestamp(now))
    if outcome.phase in lifecycle.TERMINAL:
        status.setdefault("completedAt", timestamp(now))
    return status


def changed(stored: Mapping[str, Any], outcome: Outcome) -> bool:
    """Whether ``outcome`` says something else than the stored status: worth an event and a timeline entry."""
    conditions = {condition["type"]: condition for condition in stored.get("conditions") or ()}
    ready = conditions.get(lifecycle.READY)
    return ready is None or phase_of(conditions) != outcome.phase or ready["reason"] != outcome.reason


def tripped(stored: object, generation: int, error: Exception, now: datetime) -> dict[str, Any]:
    """The status of a job that the operator's own code trips over; ``stored`` may be what it trips over.

    The phase stays as it is: nothing was decided. Only what says that the job is not ready changes.
    """
    status = dict(stored) if isinstance(stored, dict) else {}
    old = [each for each in status.get("conditions") or () if isinstance(each, dict) and "type" in each]
    before = {condition["type"]: condition for condition in old}
    message = (
        f"The operator met an error of its own on this job ({type(error).__name__}: {error})"[:1024]
        + ". It tries again; other jobs go on. Please report it with the operator's log."
    )
    said: Said = ("False", "OperatorError", message)
    rest = [condition for kind, condition in before.items() if kind != lifecycle.READY]
    ready = _condition(lifecycle.READY, said, before.get(lifecycle.READY), generation, now)
    return {**status, "observedGeneration": generation, "conditions": [*rest, ready], "message": message}


def _said(outcome: Outcome, message: str, before: Mapping[str, Condition]) -> dict[str, Said]:
    """Every condition that is to be present, in the order in which people read them."""
    row = LIFECYCLE[outcome.phase]
    said: dict[str, Said] = {
        kind: (condition["status"], condition["reason"], condition.get("message", ""))
        for kind, condition in before.items()
        if kind in lifecycle.LIFECYCLE_CONDITIONS
    }
    said |= outcome.notes
    running = (row.running, outcome.reason if row.running == "True" else str(outcome.phase), message)
    said[lifecycle.RUNNING] = running
    if outcome.phase is Phase.SUCCEEDED:
        said[lifecycle.SUCCEEDED] = ("True", outcome.reason, message)
    if outcome.phase is Phase.FAILED:
        said[lifecycle.FAILED] = ("True", outcome.reason, message)
    if not row.holds_nodes and lifecycle.NODES_READY in said:
        said[lifecycle.NODES_READY] = ("False", str(outcome.phase), "The nodes are given back.")
    ordered = {kind: said[kind] for kind in lifecycle.LIFECYCLE_CONDITIONS if kind in said}
    ordered[lifecycle.READY] = (row.ready, outcome.reason, message)
    # kstatus: these two are present and True, or absent; never False.
    if row.reconciling:
        ordered[lifecycle.RECONCILING] = ("True", outcome.reason, message)
    if row.stalled:
        ordered[lifecycle.STALLED] = ("True", outcome.reason, message)
    return ordered


def _condition(kind: str, said: Said, before: Condition | None, generation: int, now: datetime) -> Condition:
    status, reason, message = said
    flipped = before is None or before["status"] != status
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(now) if flipped or before is None else before["lastTransitionTime"],
        "observedGeneration": generation,
    }


def _timeline(
    stored: Mapping[str, Any], outcome: Outcome, message: str, now: datetime
) -> list[dict[str, Any]]:
    timeline = list(stored.get("timeline") or ())
    if changed(stored, outcome):
        timeline.append(
            {
                "time": timestamp(now),
                "phase": str(outcome.phase),
                "reason": outcome.reason,
                "message": message[:512],
            }
        )
    return timeline[-TIMELINE_ENTRIES:]
