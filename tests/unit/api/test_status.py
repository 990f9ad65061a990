"""The status models: what is written is valid JSON without nulls, and facts fit in."""

from __future__ import annotations

import math

import pytest
from pydantic import BaseModel

from tests.crd_schema import status_problems
from tunewright.api.status import (
    Condition,
    DataStatus,
    FineTuneJobStatus,
    ModelStatus,
    ProgressStatus,
)
from tunewright_trainer.contract import DataFacts, ModelFacts


@pytest.mark.parametrize(
    ("status", "facts"), [(ModelStatus, ModelFacts), (DataStatus, DataFacts)], ids=["model", "data"]
)
def test_status_holds_each_fact_of_the_contract(status: type[BaseModel], facts: type[BaseModel]) -> None:
    assert set(status.model_fields) == set(facts.model_fields)
    for name, field in facts.model_fields.items():
        assert status.model_fields[name].is_required() == field.is_required(), name


def test_dump_is_camel_case_without_nulls() -> None:
    status = FineTuneJobStatus(
        observed_generation=2,
        phase="Running",
        conditions=[
            Condition(
                type="Ready",
                status="True",
                reason="Running",
                message="",
                last_transition_time="2026-01-02T03:04:05Z",
            )
        ],
        progress=ProgressStatus(step=3, total_steps=9, steps="3/9"),
    )
    dump = status.dump()
    assert dump["observedGeneration"] == 2
    assert dump["progress"] == {"step": 3, "totalSteps": 9, "steps": "3/9"}
    assert dump["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert "observedGeneration" not in dump["conditions"][0]
    assert FineTuneJobStatus.model_validate(dump) == status


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_a_figure_that_json_cannot_say_is_left_out(figure: float) -> None:
    assert ProgressStatus(step=1, loss=figure).dump() == {"step": 1}


def test_a_status_of_a_later_version_can_be_read() -> None:
    assert FineTuneJobStatus.model_validate({"phase": "Failed", "cost": {"amount": 3}}).phase == "Failed"


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"phase": "Running", "progress": {"step": 1, "loss": 2}}, None),
        ({"phase": "Runing"}, "status.phase: 'Runing' is none of"),
        ({"progress": {"stepp": 1}}, "status.progress.stepp: is not in the CRD and would be pruned"),
        ({"progress": {"step": 1.5}}, "status.progress.step: 1.5 is no integer"),
        ({"progress": {"step": True}}, "status.progress.step: True is no integer"),
        ({"progress": {"percent": 101}}, "status.progress.percent: 101 is out of bounds"),
        ({"message": "x" * 2049}, "status.message: has 2049 characters"),
        ({"attempts": [{"startedAt": "2026-01-02T03:04:05Z"}]}, "status.attempts[0].number: is required"),
        ({"curve": {"steps": [1] * 65}}, "status.curve.steps: has 65 entries"),
    ],
    ids=str,
)
def test_the_offline_judge_of_statuses_finds(status: dict[str, object], problem: str | None) -> None:
    found = status_problems(status)
    assert [line[: len(problem or "")] for line in found] == ([problem] if problem else [])
