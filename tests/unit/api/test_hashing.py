"""The spec hash: what it covers, what it leaves out, and that no release ever moves it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.cases import MINIMAL, merged
from tunewright.api.hashing import spec_hash
from tunewright.api.spec import parse_spec

# Outputs carry these. If a value here has to change, finished jobs would train again: don't change it,
# raise hashing.VERSION and keep the old computation for old outputs.
GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "minimal": ({}, "v1:9fce683e513f99c782893b05d161c977468f7db2ee7e4068d9f04826abd62307"),
    "chat": (
        {
            "dataset": {
                "train": [
                    {
                        "configMapRef": {"name": "faq", "key": "train.jsonl"},
                        "format": "Messages",
                        "columns": {"messages": "conversation"},
                    }
                ],
                "validationFraction": 0.05,
                "maxSequenceLength": 256,
            },
            "method": {"lora": {"rank": 8, "alpha": 16, "targetModules": ["q_proj", "v_proj"]}},
            "training": {"maxSteps": 20, "learningRate": 0.0005, "batch": {"global": 4, "micro": 1}},
        },
        "v1:20f80deb8cf72981f00bfb0bce153bcea23e8b089deee04afcc8525b80d4c189",
    ),
    "full": (
        {
            "task": "TextGeneration",
            "model": {"source": "hf://org/model", "revision": "main"},
            "method": {"type": "Full"},
            "training": {
                "epochs": 1,
                "schedule": {"type": "Linear"},
                "optimizer": {"weightDecay": 0.1},
                "seed": 7,
            },
            "deepspeed": {"zeroStage": 3, "config": {"zero_optimization": {"reduce_scatter": True}}},
        },
        "v1:5d744e64764c96ec55706241dc633e1adfd2a3f9d6a7ac0b9d614c0c41da742a",
    ),
}


def _hash(changes: dict[str, Any]) -> str:
    return spec_hash(parse_spec(merged(MINIMAL, changes)))


@pytest.mark.parametrize(("changes", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden(changes: dict[str, Any], expected: str) -> None:
    assert _hash(changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "ChatCompletion"},
        {"dataset": {"maxSequenceLength": 2048, "packing": "Auto", "lossOn": "Auto"}},
        {"dataset": {"train": [{"source": "pvc://data/train.jsonl", "format": "Auto"}]}},
        {"method": {"type": "LoRA"}},
        {"method": {"lora": {}}},
        {"method": {"lora": {"rank": 16, "alpha": 32, "targetModules": ["all-linear"]}}},
        {"training": {"epochs": 3, "learningRate": 2e-4}},
        {"training": {"schedule": {}, "optimizer": {"beta1": 0.9}, "maxGradNorm": 1}},
        {"training": {"batch": {"global": 32}}},
    ],
    ids=str,
)
def test_a_default_written_out_changes_nothing(changes: dict[str, Any]) -> None:
    assert _hash(changes) == _hash({})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"secretRef": {"name": "hf-token"}}},
        {"training": {"batch": {"micro": 4}}},
        {"training": {"activationCheckpointing": "Always"}},
        {"training": {"evaluation": {"everySteps": 7}}},
        {"deepspeed": {"zeroStage": 3}},
        {"compute": {"nodes": 2, "gpusPerNode": 8}},
        {"workspace": {"source": "pvc://scratch"}},
        {"checkpoint": {"everySteps": 7}},
        {"output": {"destination": "pvc://elsewhere"}},
        {"lifecycle": {"suspend": True}},
        {"podTemplate": {"image": "mine"}},
    ],
    ids=str,
)
def test_what_only_moves_the_work_changes_nothing(changes: dict[str, Any]) -> None:
    assert _hash(changes) == _hash({})


def test_credentials_of_data_change_nothing() -> None:
    source = {"source": "hf://a/b/c.jsonl"}
    with_secret = {**source, "secretRef": {"name": "x"}}
    assert _hash({"dataset": {"train": [source]}}) == _hash({"dataset": {"train": [with_secret]}})


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "TextGeneration"},
        {"model": {"source": "hf://org/other"}},
        {"model": {"revision": "main"}},
        {"dataset": {"train": [{"source": "pvc://data/other.jsonl"}]}},
        {"dataset": {"train": [{"source": "pvc://data/train.jsonl", "maxRows": 5}]}},
        {"dataset": {"train": [{"configMapRef": {"name": "faq", "key": "a"}}]}},
        {"dataset": {"validationFraction": 0.1}},
        {"dataset": {"maxSequenceLength": 1024}},
        {"dataset": {"chatTemplate": "x"}},
        {"method": {"type": "Full"}},
        {"method": {"lora": {"rank": 8}}},
        {"training": {"epochs": 2}},
        {"training": {"maxSteps": 3}},
        {"training": {"learningRate": 1e-4}},
        {"training": {"batch": {"global": 64}}},
        {"training": {"seed": 1}},
        {"training": {"precision": "FP32"}},
        {"deepspeed": {"config": {"communication_data_type": "fp32"}}},
        {"deepspeed": {"config": {"zero_optimization": {}}}},
    ],
    ids=str,
)
def test_what_shapes_the_result_changes_it(changes: dict[str, Any]) -> None:
    assert _hash(changes) != _hash({})


def test_the_default_learning_rate_is_the_methods_own() -> None:
    full = {"method": {"type": "Full"}}
    assert _hash(full | {"training": {"learningRate": 2e-5}}) == _hash(full)
    assert _hash(full | {"training": {"learningRate": 2e-4}}) != _hash(full)


def test_order_of_keys_changes_nothing() -> None:
    spec = merged(MINIMAL, {"deepspeed": {"config": {"b": 1, "a": {"d": 1, "c": 2}}}})
    turned = merged(MINIMAL, {"deepspeed": {"config": {"a": {"c": 2, "d": 1}, "b": 1}}})
    assert spec_hash(parse_spec(spec)) == spec_hash(parse_spec(turned))
