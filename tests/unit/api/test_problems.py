"""What is said of manifests that are wrong: one sentence each, the nearest field named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.cases import MINIMAL, manifest, merged
from tunewright.api.crd import NAME_MESSAGE
from tunewright.api.problems import manifest_problems, name_is_valid, spec_problems
from tunewright.core import names


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainig": {}}, "spec.trainig: no such field; did you mean training?"),
        ({"training": {"max_steps": 1}}, "spec.training.max_steps: no such field; did you mean maxSteps?"),
        ({"model": {"Revision": "x"}}, "spec.model.Revision: no such field; did you mean revision?"),
        ({"epochs": 3}, "spec.epochs: no such field; did you mean spec.training.epochs?"),
        ({"rank": 8}, "spec.rank: no such field; did you mean spec.method.lora.rank?"),
        (
            {"type": "LoRA"},
            "spec.type: no such field; did you mean spec.method.type, spec.training.schedule.type or"
            " spec.training.optimizer.type?",
        ),
        ({"output": {"zzz": 1}}, "spec.output.zzz: no such field; there are destination, formats"),
        (
            {"method": {"type": "lora"}},
            "spec.method.type: write LoRA or Full, not 'lora'; did you mean LoRA?",
        ),
        ({"method": {"type": "QQ"}}, "spec.method.type: write LoRA or Full, not 'QQ'"),
        ({"training": {"seed": "1"}}, "spec.training.seed: must be a whole number, not '1'"),
        ({"training": {"seed": True}}, "spec.training.seed: must be a whole number, not True"),
        ({"training": {"learningRate": "2e-4"}}, "spec.training.learningRate: must be a number, not '2e-4'"),
        ({"training": {"learningRate": 0}}, "spec.training.learningRate: must be above 0"),
        ({"training": {"batch": {"global": 0}}}, "spec.training.batch.global: must be at least 1"),
        ({"training": 3}, "spec.training: must be a map, not 3"),
        ({"lifecycle": {"suspend": "no"}}, "spec.lifecycle.suspend: must be true or false, not 'no'"),
        ({"dataset": {"train": {}}}, "spec.dataset.train: must be a list, not {}"),
        ({"dataset": {"train": []}}, "spec.dataset.train: must not be empty"),
        ({"model": None}, "spec.model: is required. The base model."),
        (
            {"deepspeed": {"config": {"bf16": True}}},
            "spec.deepspeed.config: bf16 must be a map, as DeepSpeed documents it",
        ),
    ],
    ids=str,
)
def test_one_sentence(changes: dict[str, Any], expected: str) -> None:
    assert spec_problems(merged(MINIMAL, changes)) == [expected]


def test_every_problem_is_told_at_once() -> None:
    spec = merged(MINIMAL, {"task": "Chat", "model": {"source": "x"}, "training": {"epochs": 0}})
    assert [problem.split(":")[0] for problem in spec_problems(spec)] == [
        "spec.task",
        "spec.model.source",
        "spec.training.epochs",
    ]


def test_the_rest_of_a_manifest_is_looked_at_too() -> None:
    wrong = manifest(MINIMAL, "Support_Bot") | {"apiVersion": "v1", "metdata": {}}
    assert manifest_problems(wrong) == [
        "metdata: no such field; did you mean metadata?",
        "apiVersion: write tunewright.dev/v1alpha1",
        f"metadata.name: {NAME_MESSAGE}",
    ]


@pytest.mark.parametrize("spec", [None, "x", []], ids=repr)
def test_a_manifest_without_a_spec(spec: object) -> None:
    [problem] = manifest_problems(manifest({}) | {"spec": spec})
    assert problem == "spec: is required; write at least model, dataset and output"


def test_generated_names_are_the_servers_business() -> None:
    assert manifest_problems(manifest(MINIMAL) | {"metadata": {"generateName": "bot-"}}) == []


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a" * names.MAX_JOB_NAME_LENGTH, True),
        ("a" * (names.MAX_JOB_NAME_LENGTH + 1), False),
        ("a-1", True),
        ("1a", False),
        ("a-", False),
        ("a.b", False),
        ("a\n", False),
        ("A", False),
        (None, False),
        (7, False),
    ],
)
def test_names(name: object, valid: bool) -> None:
    assert name_is_valid(name) is valid
