"""The models' verdicts on the shared table; tests/cluster/test_api_rules.py asks an API server the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.api.cases import ACCEPTED, REFUSED, Case
from tunewright.api.crd import spec_schema
from tunewright.api.problems import spec_problems
from tunewright.api.schema import Schema
from tunewright.api.spec import parse_spec
from tunewright.cli.manifests import like_json


def _messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"]:
            yield rule["message"]
    for child in (
        *schema.get("properties", {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ):
        if isinstance(child, dict):
            yield from _messages(child)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_accepted(case: Case) -> None:
    assert spec_problems(like_json(case.spec)) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused_in_one_sentence_that_names_the_field(case: Case) -> None:
    problems = spec_problems(like_json(case.spec))
    assert len(problems) == 1
    field, _, message = problems[0].partition(": ")
    assert field == case.field
    assert message == case.message or case.message is None


def test_every_rule_of_the_schema_has_a_case_that_breaks_it() -> None:
    assert set(_messages(spec_schema())) == {case.message for case in REFUSED} - {None}


def test_a_field_that_is_null_is_a_field_that_is_not_there() -> None:
    case = Case("nulls", {})
    with_nulls = {**case.spec, "training": None, "compute": {"nodes": None, "nodeSelector": None}}
    assert parse_spec(with_nulls) == parse_spec(case.spec)


def test_python_names_are_no_field_names() -> None:
    spec = {**Case("", {}).spec, "training": {"max_steps": 3}}
    assert spec_problems(spec) == ["spec.training.max_steps: no such field; did you mean maxSteps?"]


def test_both_spellings_of_int_or_string_are_one_value() -> None:
    as_number = Case("", {"deepspeed": {"zeroStage": 3}, "training": {"batch": {"global": 8, "micro": 2}}})
    as_string = Case(
        "", {"deepspeed": {"zeroStage": "3"}, "training": {"batch": {"global": 8, "micro": "2"}}}
    )
    assert parse_spec(as_number.spec) == parse_spec(as_string.spec)
    assert parse_spec(as_string.spec).training.batch.micro == 2
