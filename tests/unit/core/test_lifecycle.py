"""The life-cycle table: consistent in itself, and told back by the conditions that it writes."""

from __future__ import annotations

import pytest

from tests.argocd import health
from tests.builders import NOW, make_job
from tests.unit.core.invariants import kstatus
from tunewright.api.status import Phase as ApiPhase
from tunewright.core import status as statuses
from tunewright.core.lifecycle import LIFECYCLE, TERMINAL, Phase, phase_of
from tunewright.core.outcome import Outcome

PHASES = list(Phase)


def test_every_phase_has_a_row() -> None:
    assert set(LIFECYCLE) == set(Phase)


def test_the_api_knows_every_phase() -> None:
    assert set(Phase) <= set(ApiPhase.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("phase", PHASES)
def test_conditions_tell_the_phase_back(phase: Phase) -> None:
    """The rows are distinct: no two phases write the same conditions."""
    status = statuses.build({}, 1, Outcome(phase, "Because", "Why.", {}), NOW)
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert phase_of(conditions) is phase
    assert status["phase"] == phase


@pytest.mark.parametrize("phase", PHASES)
def test_tools_read_what_the_row_says(phase: Phase) -> None:
    status = statuses.build({}, 1, Outcome(phase, "Because", "Why.", {}), NOW)
    job = make_job(status=status, deleting=phase is Phase.TERMINATING)
    assert kstatus(job) == LIFECYCLE[phase].kstatus
    assert health(job)[0] == LIFECYCLE[phase].argo


@pytest.mark.parametrize("phase", PHASES)
def test_rows_hold_the_rules_of_kstatus(phase: Phase) -> None:
    row = LIFECYCLE[phase]
    assert row.ready == ("True" if row.kstatus == "Current" else "False")
    assert row.stalled == (row.kstatus == "Failed")
    # A suspended job is not under way: it waits for a person, and must not look like a stuck roll-out.
    assert row.reconciling == (row.kstatus in ("InProgress", "Terminating") and phase is not Phase.SUSPENDED)
    assert not (row.stalled and row.reconciling)
    assert (row.argo == "Healthy") == (phase is Phase.SUCCEEDED)
    assert (row.argo == "Degraded") == (phase is Phase.FAILED)
    assert (row.argo == "Suspended") == (phase is Phase.SUSPENDED)


def test_an_end_is_left_by_deletion_only() -> None:
    for phase in TERMINAL:
        assert LIFECYCLE[phase].followers == {Phase.TERMINATING}
    assert LIFECYCLE[Phase.TERMINATING].followers == frozenset()


def test_data_once_ready_is_never_prepared_again() -> None:
    after_data = {Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.RESTARTING, Phase.EXPORTING}
    for phase in after_data:
        assert not LIFECYCLE[phase].followers & {Phase.PENDING, Phase.PREPARING}


def test_every_phase_can_be_reached_from_pending_and_can_end() -> None:
    reached, todo = {Phase.PENDING}, [Phase.PENDING]
    while todo:
        for follower in LIFECYCLE[todo.pop()].followers - reached:
            reached.add(follower)
            todo.append(follower)
    assert reached == set(Phase)
    assert all(
        LIFECYCLE[phase].followers >= TERMINAL for phase in Phase if phase not in TERMINAL | {"Terminating"}
    )


def test_without_conditions_a_job_is_pending() -> None:
    assert phase_of({}) is Phase.PENDING


def test_a_phase_of_a_newer_operator_reads_as_pending() -> None:
    assert phase_of({"Running": {"status": "False", "reason": "Queued"}}) is Phase.PENDING
