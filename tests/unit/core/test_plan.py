"""Walks every phase and every reason: what is known of a job, and what plan() makes of it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import NOW, SETTINGS, at, make_report, make_status, make_world
from tests.unit.core.cases.table import CASES
from tests.unit.core.cases.worlds import PREPARED, Case, ended, running, training, world_of
from tests.unit.core.invariants import check_move, check_schema
from tunewright.core import failures
from tunewright.core.lifecycle import LIFECYCLE, Phase
from tunewright.core.model import Plan
from tunewright.core.plan import plan
from tunewright_trainer.contract import Reason

CORE = Path(failures.__file__).parent


def planned(case: Case) -> Plan:
    return plan(case.world, case.settings, case.now)


def status_after(case: Case) -> dict[str, Any]:
    """The status that stands after the plan: the written one, or else the stored one."""
    decided = planned(case)
    return dict(decided.status if decided.status is not None else case.world.job["status"])


def look_up(value: Any, path: str) -> Any:
    """``a.0.b`` in nested maps and lists; None where something is missing."""
    for part in path.strip(".").split("."):
        try:
            value = value[int(part)] if part.isdecimal() else value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_plan(case: Case) -> None:
    decided, status = planned(case), status_after(case)
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert (status["phase"], conditions["Ready"]["reason"]) == (case.phase, case.reason), status["message"]
    assert case.message in status["message"]
    assert tuple(f"{child['kind']}/{child['metadata']['name']}" for child in decided.create) == case.create
    assert tuple(f"{deletion.resource}/{deletion.name}" for deletion in decided.delete) == case.delete
    if case.requeue is not None:
        assert decided.requeue_after_seconds == pytest.approx(case.requeue)
    if case.warning is not None:
        assert [event.type for event in decided.events] == ["Warning" if case.warning else "Normal"]
    if not case.written:
        assert decided.status is None
    for name, expected in case.expect.items():
        found = look_up(status, name) if name.startswith(".") else getattr(decided, name)
        assert found == expected, name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_is_written_is_valid_and_final(case: Case) -> None:
    """The status fits the schema, follows what was stored, and is not written a second time."""
    decided = planned(case)
    if decided.status is None:
        return
    check_schema(dict(decided.status))
    after = {**case.world.job, "status": decided.status}
    check_move(case.world.job, after)
    again = plan(replace(case.world, job=after), case.settings, case.now)
    if decided.requeue_after_seconds != 0 and decided.status["phase"] not in ("Failed", "Restarting"):
        assert again.status is None, "the same facts are written twice"
        assert again.events == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_waiting_does_not_rewrite(case: Case) -> None:
    """Messages hold absolute times, never ages: a second later there is nothing new to write."""
    status = status_after(case)
    world = replace(case.world, job={**case.world.job, "status": status})
    first = plan(world, case.settings, case.now)
    if first.status is None and (first.requeue_after_seconds or 99) > 2:
        later = plan(world, case.settings, at((case.now - NOW).total_seconds() + 1))
        assert later.status is None


# --- no phase and no reason without a row -------------------------------------------------------------------


def test_every_phase_has_a_case() -> None:
    assert {case.phase for case in CASES} == set(Phase)


def test_every_phase_is_left_by_a_case() -> None:
    stored = {(case.world.job.get("status") or {}).get("phase", "Pending") for case in CASES}
    assert set(Phase) - stored == {"Provisioning", "Preparing", "Terminating"}  # seen, but not told apart


def test_every_phase_can_be_suspended_or_says_no_and_can_be_deleted() -> None:
    asked = [case for case in CASES if case.world.job["spec"].get("lifecycle", {}).get("suspend")]
    assert {case.phase for case in asked} >= {"Suspended", "Exporting", "Failed", "Terminating"}
    assert all(
        Phase.TERMINATING in row.followers for phase, row in LIFECYCLE.items() if phase != "Terminating"
    )


def _reasons_in(path: Path) -> set[str]:
    """CamelCase words of at least two humps in the strings of a module."""
    constants = (
        node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
    )
    return {
        text for text in constants if isinstance(text, str) and re.fullmatch(r"([A-Z][a-zA-Z]+){2,}", text)
    }


NOT_REASONS = {
    "BackoffLimitExceeded", "CreateContainerConfigError", "CreateContainerError", "DataReady", "NodesReady",
    "CheckpointSaved", "ErrImagePull", "ErrImageNeverPull", "ImageInspectError", "ImagePullBackOff",
    "InvalidImageName", "RunContainerError", "ConfigMap", "OOMKilled",
    "NotFound",  # the end of SecretNotFound and its like, which have their rows
}  # fmt: skip


def test_every_reason_has_a_case() -> None:
    said = {"RankLost", "Preempted"} | {str(reason) for reason, _ in failures._BY_EXIT_CODE.values()}
    for path in (CORE / "failures.py", CORE / "pods.py", *(CORE / "stages").glob("*.py")):
        said |= _reasons_in(path)
    said = {reason for reason in said - NOT_REASONS if not reason.isupper()}
    assert said - {case.reason for case in CASES} - {phase.value for phase in Phase} == set(), (
        "rows are missing"
    )


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_the_trainer_is_passed_on(reason: Reason) -> None:
    assert reason in {case.reason for case in CASES}


# --- how often is written -----------------------------------------------------------------------------------


def test_wording_waits_until_the_last_write_is_old_enough() -> None:
    world = world_of(training(progress=PREPARED), *running())
    stored = plan(world, SETTINGS, NOW).status
    assert stored is not None
    pods = [
        pod if index else {**pod, "status": {**pod["status"], "conditions": []}}
        for index, pod in enumerate(world.pods)
    ]
    changed = replace(world, job={**world.job, "status": stored}, pods=tuple(pods))
    early = plan(replace(changed, seconds_since_status_write=12.0), SETTINGS, NOW)
    assert (early.status, early.requeue_after_seconds) == (None, 18.0)
    due = plan(replace(changed, seconds_since_status_write=30.0), SETTINGS, NOW)
    assert due.status is not None
    assert due.status["workers"]["ready"] == 1


def test_a_new_phase_is_written_at_once() -> None:
    world = world_of(training(progress=PREPARED), *running())
    assert plan(replace(world, seconds_since_status_write=0.0), SETTINGS, NOW).status is not None


@pytest.mark.parametrize(
    ("seconds", "step", "written", "requeue"), [(10, 50, False, 20), (30, 50, True, 1800)]
)
def test_progress_is_written_every_thirty_seconds(
    seconds: int, step: int, written: bool, requeue: int
) -> None:
    stored = plan(world_of(training(progress=PREPARED), *running()), SETTINGS, NOW).status
    report = make_report("uid-support-bot-a1-0-abcde", step, received=at(seconds))
    decided = plan(world_of(dict(stored or {}), *running(), progress=report), SETTINGS, at(seconds))
    assert (decided.status is not None, decided.requeue_after_seconds) == (written, requeue)


def test_a_gang_that_posts_the_same_step_writes_nothing() -> None:
    stored = plan(world_of(training(progress=PREPARED), *running()), SETTINGS, NOW).status
    report = make_report("uid-support-bot-a1-0-abcde", 40, received=at(900))
    decided = plan(world_of(dict(stored or {}), *running(), progress=report), SETTINGS, at(900))
    assert (decided.status, decided.requeue_after_seconds) == (None, 900)


# --- upgrades and edits -------------------------------------------------------------------------------------


def test_a_plan_once_stored_outlives_an_upgrade() -> None:
    newer = replace(SETTINGS, trainer_image="tunewright/trainer:9.9.9")
    decided = plan(make_world(world_of(make_status()).job), newer, NOW)
    image = decided.create[-1]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == SETTINGS.trainer_image


def test_a_phase_of_a_newer_operator_is_looked_at_anew() -> None:
    status = training()
    for condition in status["conditions"]:
        if condition["type"] == "Running":
            condition |= {"status": "False", "reason": "Queued"}
    assert plan(world_of(status, *running()), SETTINGS, NOW).status is not None


def test_an_edit_after_the_end_only_moves_the_generation() -> None:
    stored = plan(world_of(ended("Succeeded")), SETTINGS, NOW).status
    decided = plan(world_of(dict(stored or ended("Succeeded")), generation=2), SETTINGS, NOW)
    assert decided.status is not None
    assert decided.status["observedGeneration"] == 2
    assert decided.events == ()
