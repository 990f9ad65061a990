"""The memory estimate: terms that can be checked by hand, and how each moves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_model_facts
from tunewright.planner.estimate import CONTEXT_BYTES, FRAGMENTATION, RankMemory, rank_memory

MODEL = make_model_facts(parameters=1_000_000, trainable_parameters=1_000, hidden_size=100, layers=10)
BASE: dict[str, Any] = {
    "zero_stage": 0,
    "world_size": 4,
    "micro_batch": 2,
    "sequence_length": 50,
    "weight_bytes": 2,
    "activation_checkpointing": False,
}


def memory(**changes: Any) -> RankMemory:
    return rank_memory(changes.pop("model", MODEL), **(BASE | changes))


def test_terms_by_hand() -> None:
    found = memory()
    assert found == RankMemory(
        weights_bytes=2 * 1_000_000,
        gradients_bytes=2 * 1_000,
        optimizer_bytes=12 * 1_000,
        activations_bytes=34 * 2 * 50 * 100 * 10,
        context_bytes=CONTEXT_BYTES,
    )
    parts = 2_000_000 + 2_000 + 12_000 + 3_400_000 + CONTEXT_BYTES
    assert found.total == int(parts * (1 + FRAGMENTATION))


@pytest.mark.parametrize(
    ("stage", "optimizer", "gradients"),
    [(0, 12_000, 2_000), (1, 3_000, 2_000), (2, 3_000, 500), (3, 3_000, 500)],
)
def test_what_each_stage_shares_out(stage: int, optimizer: int, gradients: int) -> None:
    found = memory(zero_stage=stage)
    assert (found.optimizer_bytes, found.gradients_bytes) == (optimizer, gradients)


def test_stage_3_shares_out_the_weights_of_a_large_model() -> None:
    model = make_model_facts(parameters=70_000_000_000, layers=80)
    assert memory(model=model, zero_stage=3).weights_bytes < memory(model=model).weights_bytes / 3


def test_full_training_counts_each_weight_once() -> None:
    model = make_model_facts(parameters=1_000_000, trainable_parameters=1_000_000)
    assert memory(model=model).weights_bytes == 2_000_000


def test_recomputation_keeps_one_layer_and_the_borders() -> None:
    tokens = 2 * 50
    expected = 34 * tokens * 100 + 2 * tokens * 100 * 10
    assert memory(activation_checkpointing=True).activations_bytes == expected


def test_fp32_doubles_what_is_stored() -> None:
    assert memory(weight_bytes=4).weights_bytes == 2 * memory().weights_bytes
    assert memory(weight_bytes=4).activations_bytes == 2 * memory().activations_bytes


@pytest.mark.parametrize("key", ["micro_batch", "sequence_length"])
def test_more_tokens_need_more(key: str) -> None:
    assert memory(**{key: BASE[key] * 2}).activations_bytes == 2 * memory().activations_bytes
