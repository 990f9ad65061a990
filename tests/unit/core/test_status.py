"""The one shaper of status: conditions, transition times, timeline, completion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW, at
from tunewright.api.status import TIMELINE_ENTRIES
from tunewright.core import status as statuses
from tunewright.core.lifecycle import Phase
from tunewright.core.outcome import MESSAGE_CHARACTERS, Outcome, timestamp


def said(phase: Phase, reason: str = "Because", message: str = "Why.", **rest: Any) -> Outcome:
    return Outcome(phase, reason, message, rest.pop("status", {}), **rest)


def build(
    stored: dict[str, Any], outcome: Outcome, seconds: float = 0, generation: int = 1
) -> dict[str, Any]:
    return statuses.build(stored, generation, outcome, at(seconds))


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in status["conditions"] if entry["type"] == kind)


def test_the_same_outcome_makes_the_same_status_whenever() -> None:
    first = build({}, said(Phase.PREPARING))
    assert build(first, said(Phase.PREPARING, status=first), 100) == first


def test_transition_times_move_with_the_status_only() -> None:
    first = build({}, said(Phase.STARTING))
    reworded = build(first, said(Phase.STARTING, message="Else.", status=first), 10)
    assert condition(reworded, "Ready")["lastTransitionTime"] == timestamp(NOW)
    assert condition(reworded, "Ready")["message"] == "Else."
    running = build(first, said(Phase.RUNNING, status=first), 20)
    assert condition(running, "Ready")["lastTransitionTime"] == timestamp(at(20))
    assert condition(running, "Running")["lastTransitionTime"] == timestamp(at(20))


def test_kstatus_conditions_are_true_or_absent() -> None:
    starting = build({}, said(Phase.STARTING))
    running = build(starting, said(Phase.RUNNING, status=starting))
    failed = build(running, said(Phase.FAILED, status=running))
    kinds = [{entry["type"] for entry in status["conditions"]} for status in (starting, running, failed)]
    assert ["Reconciling" in kind for kind in kinds] == [True, False, False]
    assert ["Stalled" in kind for kind in kinds] == [False, False, True]


def test_notes_stay_until_they_are_replaced() -> None:
    noted = build({}, said(Phase.PREPARING, notes={"DataReady": ("Unknown", "Preparing", "Being read.")}))
    later = build(noted, said(Phase.STARTING, status=noted))
    assert condition(later, "DataReady")["reason"] == "Preparing"
    ready = build(
        later, said(Phase.STARTING, status=later, notes={"DataReady": ("True", "DataReady", "Read.")}), 9
    )
    assert condition(ready, "DataReady")["status"] == "True"
    assert condition(ready, "DataReady")["lastTransitionTime"] == timestamp(at(9))


@pytest.mark.parametrize("phase", [Phase.SUSPENDED, Phase.EXPORTING, Phase.SUCCEEDED, Phase.FAILED])
def test_nodes_are_not_ready_where_none_are_held(phase: Phase) -> None:
    running = build({}, said(Phase.RUNNING, notes={"NodesReady": ("True", "NodesReady", "All.")}))
    after = build(running, said(phase, status=running))
    assert condition(after, "NodesReady")["status"] == "False"
    assert "NodesReady" not in {entry["type"] for entry in build({}, said(phase))["conditions"]}


@pytest.mark.parametrize(("phase", "kind"), [(Phase.SUCCEEDED, "Succeeded"), (Phase.FAILED, "Failed")])
def test_an_end_is_a_condition_and_a_time(phase: Phase, kind: str) -> None:
    ended = build({}, said(phase), 5)
    assert condition(ended, kind)["status"] == "True"
    assert ended["completedAt"] == timestamp(at(5))
    assert build(ended, said(phase, status=ended), 50)["completedAt"] == timestamp(at(5))


def test_the_start_is_kept() -> None:
    first = build({}, said(Phase.PENDING))
    assert build(first, said(Phase.PREPARING, status=first), 99)["startedAt"] == timestamp(NOW)


def test_generation_stands_in_status_and_conditions() -> None:
    status = build({}, said(Phase.PENDING), generation=7)
    assert status["observedGeneration"] == 7
    assert {entry["observedGeneration"] for entry in status["conditions"]} == {7}


def test_the_timeline_holds_changes_and_only_the_newest() -> None:
    status: dict[str, Any] = {}
    for number in range(TIMELINE_ENTRIES + 5):
        outcome = said(Phase.RESTARTING, f"Reason{number}", status=status)
        status = build(status, outcome, number)
        status = build(status, said(Phase.RESTARTING, f"Reason{number}", "Else.", status=status), number)
    assert len(status["timeline"]) == TIMELINE_ENTRIES
    assert [status["timeline"][0]["reason"], status["timeline"][-1]["reason"]] == ["Reason5", "Reason36"]


def test_a_long_message_is_cut() -> None:
    status = build({}, said(Phase.FAILED, message="x" * 5000))
    assert len(status["message"]) == MESSAGE_CHARACTERS
    assert len(status["timeline"][0]["message"]) == 512


def test_empty_fields_are_left_out() -> None:
    status = build(
        {}, said(Phase.PENDING, status={"workers": None, "outputs": [], "curve": {}, "plan": {"a": 0}})
    )
    assert not {"workers", "outputs", "curve"} & status.keys()
    assert status["plan"] == {"a": 0}


@pytest.mark.parametrize(
    ("outcome", "changed"),
    [
        (said(Phase.STARTING), False),
        (said(Phase.STARTING, message="Else."), False),
        (said(Phase.STARTING, reason="Other"), True),
        (said(Phase.RESTARTING), True),
    ],
    ids=["same", "other words", "other reason", "other phase"],
)
def test_changed(outcome: Outcome, changed: bool) -> None:
    assert statuses.changed(build({}, said(Phase.STARTING)), outcome) is changed
