"""A row of the life-cycle table, a reason, or a row of bad input without a cluster test fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from hack.devcluster.images import REPOSITORY_ROOT
from tests.cluster.rows import BAD_INPUT, ELSEWHERE
from tunewright.core.failures import INFRASTRUCTURE_REASONS
from tunewright.core.lifecycle import LIFECYCLE
from tunewright_trainer.contract import Reason

TESTS = Path(__file__).parent
CORE = REPOSITORY_ROOT / "operator" / "tunewright" / "core"
REASON_ARGUMENT = {"outcome": 2, "Verdict": 0, "Wait": 0, "Words": None}
"""Calls that give a reason, and its place among their arguments."""


def covered() -> dict[str, list[str]]:
    """Row to the tests whose decorator names it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        for function in _functions(path):
            for decorator in function.decorator_list:
                for row in _rows_of(decorator):
                    found.setdefault(row, []).append(f"{path.name}::{function.name}")
    return found


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _rows_of(decorator: ast.expr) -> Iterator[str]:
    if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)):
        return
    if decorator.func.id == "covers":
        for argument in decorator.args:
            assert isinstance(argument, ast.Constant), "rows are written out"
            yield str(argument.value)


def reasons() -> set[str]:
    """Every reason that the operator's source can give, found where it is given, and those of the trainer."""
    found = {str(reason) for reason in Reason} | set(INFRASTRUCTURE_REASONS)
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= set(_reasons_of(node))
    return found


def _reasons_of(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in REASON_ARGUMENT:
        return
    place = REASON_ARGUMENT[name]
    given = [keyword.value for keyword in call.keywords if keyword.arg in ("reason", "retry_reason")]
    if place is not None and len(call.args) > place:
        given.append(call.args[place])
    for value in given:
        # `told or "Default"` gives its default too.
        for each in value.values if isinstance(value, ast.BoolOp) else [value]:
            if isinstance(each, ast.Constant) and each.value:
                yield str(each.value)


def test_the_search_finds_reasons_of_every_form() -> None:
    """One of each call that gives a reason: if the source is written otherwise, the search must follow."""
    expected = {
        "PlanDoesNotFit",
        "NodeLost",
        "Unschedulable",
        "PrepareRetrying",
        "WorkersStopping",
        "NaNLoss",
    }
    assert expected <= reasons()


def test_every_row_of_bad_input_has_a_test() -> None:
    assert not set(BAD_INPUT) - set(covered())


def test_every_phase_has_a_test() -> None:
    assert not {str(phase) for phase in LIFECYCLE} - set(covered())


def test_every_reason_has_a_test() -> None:
    without = reasons() - set(covered()) - set(ELSEWHERE)
    assert not without, f"no cluster test covers {sorted(without)}"


def test_tests_name_rows_that_exist() -> None:
    phases = {str(phase) for phase in LIFECYCLE}
    # Built from a kind, or returned beside their phase.
    built = {"SecretNotFound", "ConfigMapNotFound", "PersistentVolumeClaimNotFound"}
    known = set(BAD_INPUT) | phases | reasons() | built | {"Training", "LoadingModel", "OperatorError"}
    assert not set(covered()) - known


def test_what_is_covered_elsewhere_is_so() -> None:
    for reason, place in ELSEWHERE.items():
        assert reason not in covered(), f"{reason} has a cluster test: take it off the list"
        path, _, word = place.partition("::")
        assert word in (REPOSITORY_ROOT / path).read_text(), f"{path} says nothing of {word}"
