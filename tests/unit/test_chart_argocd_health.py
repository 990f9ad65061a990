"""Argo CD's health rule agrees with the life-cycle table, for every phase and every gap in what it sees."""

from __future__ import annotations

from typing import Any

import pytest

from tests.argocd import health
from tunewright.core import lifecycle
from tunewright.core.lifecycle import LIFECYCLE, Phase

Job = dict[str, Any]


def condition(type_: str, status: str, reason: str = "Reason") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": ""}


def job_in(phase: Phase, generation: int = 1, observed: int = 1) -> Job:
    """A job whose conditions say ``phase``, as the table's row has it."""
    row = LIFECYCLE[phase]
    conditions = [
        condition(lifecycle.RUNNING, row.running, phase),
        condition(lifecycle.READY, row.ready, phase),
    ]
    if row.reconciling:
        conditions.append(condition(lifecycle.RECONCILING, "True", phase))
    if row.stalled:
        conditions += [
            condition(lifecycle.STALLED, "True", phase),
            condition(lifecycle.FAILED, "True", phase),
        ]
    if phase is Phase.SUCCEEDED:
        conditions.append(condition(lifecycle.SUCCEEDED, "True", phase))
    metadata: dict[str, Any] = {"name": "bot", "generation": generation}
    if phase is Phase.TERMINATING:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {},
        "status": {"observedGeneration": observed, "conditions": conditions, "message": f"It is {phase}."},
    }


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_the_health_of_its_row(phase: Phase) -> None:
    assert health(job_in(phase)) == (LIFECYCLE[phase].argo, f"It is {phase}.")


@pytest.mark.parametrize("phase", list(Phase))
def test_a_status_of_an_older_spec_is_progressing(phase: Phase) -> None:
    assert health(job_in(phase, generation=2))[0] == "Progressing"


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED])
def test_a_job_that_is_being_deleted_is_progressing(phase: Phase) -> None:
    job = job_in(phase)
    job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert health(job)[0] == "Progressing"


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(None, id="no-status"),
        pytest.param({}, id="empty"),
        pytest.param({"observedGeneration": 1}, id="no-conditions"),
        pytest.param({"observedGeneration": 1, "conditions": []}, id="empty-conditions"),
        pytest.param({"conditions": [condition("Succeeded", "True")]}, id="no-observed-generation"),
    ],
)
def test_what_the_operator_has_not_seen_yet_is_progressing(status: Job | None) -> None:
    job = {"metadata": {"name": "bot", "generation": 1}, "status": status}
    assert health(job) == ("Progressing", "Waiting for the operator to see the job")


def test_the_order_of_conditions_does_not_matter() -> None:
    job = job_in(Phase.SUCCEEDED)
    job["status"]["conditions"].reverse()
    assert health(job)[0] == "Healthy"


def test_false_conditions_decide_nothing() -> None:
    job = job_in(Phase.STARTING)
    job["status"]["conditions"] += [condition("Succeeded", "False"), condition("Stalled", "False")]
    assert health(job)[0] == "Progressing"
