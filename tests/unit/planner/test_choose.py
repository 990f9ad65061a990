"""What the planner chooses, why it refuses, and that more of anything never makes things worse."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.builders import make_data_facts, make_model_facts, make_spec
from tunewright.api.spec import FineTuneJobSpec, parse_spec
from tunewright.planner.choose import Choice, DoesNotFit, choose
from tunewright.planner.estimate import GIB

SEVEN_BILLION = make_model_facts(
    parameters=7_000_000_000, trainable_parameters=40_000_000, hidden_size=4096, layers=32
)


def gpu_spec(nodes: int = 1, gpus: int = 2, **changes: Any) -> FineTuneJobSpec:
    compute = {"nodes": nodes, "gpusPerNode": gpus, "processesPerNode": None}
    changes.setdefault("training", {"batch": {"global": 32}})
    return parse_spec(make_spec(compute=compute, **changes))


def chosen(spec: FineTuneJobSpec, memory_gib: float | None, **data: Any) -> Choice:
    facts = make_data_facts(**({"sequence_length": 2048} | data))
    return choose(spec, SEVEN_BILLION, facts, None if memory_gib is None else int(memory_gib * GIB))


def test_the_global_batch_is_kept() -> None:
    for nodes, gpus in ((1, 1), (1, 2), (2, 4), (4, 8)):
        choice = chosen(gpu_spec(nodes, gpus), 80)
        assert choice.world_size == nodes * gpus
        assert choice.micro_batch * choice.gradient_accumulation * choice.world_size == 32


def test_ample_memory_needs_no_tricks() -> None:
    choice = chosen(gpu_spec(), 10_000)
    assert (choice.zero_stage, choice.activation_checkpointing, choice.micro_batch) == (2, False, 16)


def test_recomputation_comes_after_smaller_micro_batches_and_sharding() -> None:
    assert chosen(gpu_spec(), 40).activation_checkpointing is False
    assert chosen(gpu_spec(), 16).activation_checkpointing is True


def test_sharding_comes_when_weights_do_not_fit() -> None:
    choice = chosen(gpu_spec(1, 8), 12)
    assert choice.zero_stage == 3
    assert choice.memory.total <= 12 * GIB


def test_unknown_memory_is_taken_to_suffice() -> None:
    assert chosen(gpu_spec(), None).zero_stage == 2
    assert "(device memory unknown)" in " ".join(chosen(gpu_spec(), None).reasons)


def test_cpu_ranks_take_one_sequence_in_fp32() -> None:
    choice = choose(parse_spec(make_spec()), make_model_facts(), make_data_facts(), None)
    assert (choice.precision, choice.micro_batch, choice.world_size) == ("FP32", 1, 2)


def test_what_is_written_is_taken() -> None:
    spec = gpu_spec(
        training={
            "precision": "FP16",
            "activationCheckpointing": "Always",
            "batch": {"global": 32, "micro": 4},
        },
        deepspeed={"zeroStage": 1},
    )
    choice = chosen(spec, 80)
    assert (choice.precision, choice.activation_checkpointing, choice.micro_batch, choice.zero_stage) == (
        "FP16", True, 4, 1,
    )  # fmt: skip
    assert "ZeRO-1: as asked." in choice.reasons
    assert "Activations are recomputed." in choice.reasons


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_more_memory_never_costs_speed(method: str) -> None:
    """With each GiB more: recomputation only goes, the stage only falls, micro-batches only grow."""
    ranks: list[tuple[bool, int, int]] = []
    for memory in range(4, 200, 4):
        try:
            choice = chosen(gpu_spec(1, 8, method={"type": method}), memory)
        except DoesNotFit:
            assert not ranks, f"{memory} GiB refused after less was enough"
            continue
        assert choice.memory.total <= memory * GIB
        ranks.append((choice.activation_checkpointing, choice.zero_stage, -choice.micro_batch))
    assert len(set(ranks)) > 3
    assert ranks == sorted(ranks, reverse=True)


def test_more_ranks_never_need_more_memory_each() -> None:
    spec = {"deepspeed": {"zeroStage": 3}, "training": {"batch": {"global": 32, "micro": 1}}}
    totals = [chosen(gpu_spec(1, gpus, **spec), None).memory.total for gpus in (1, 2, 4, 8)]
    assert totals == sorted(totals, reverse=True)


def test_a_refusal_says_by_how_much_and_what_helps() -> None:
    with pytest.raises(DoesNotFit) as refusal:
        chosen(gpu_spec(), 4)
    needed = re.match(r"A rank needs at least ([0-9.]+) GiB and a GPU has 4.0 GiB. Try: ", str(refusal.value))
    assert needed is not None
    assert chosen(gpu_spec(), float(needed[1]) + 0.1).activation_checkpointing
    assert str(refusal.value).endswith(
        "Try: dataset.maxSequenceLength: 1024; more GPUs (compute.nodes, compute.gpusPerNode); "
        "GPUs with more memory (compute.nodeSelector)."
    )


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"deepspeed": {"zeroStage": 0}}, "deepspeed.zeroStage: Auto"),
        ({"method": {"type": "Full"}}, "method.type: LoRA"),
        ({"training": {"batch": {"global": 32, "micro": 16}}}, "training.batch.micro: Auto"),
        (
            {"training": {"batch": {"global": 32}, "activationCheckpointing": "Never"}},
            "activationCheckpointing: Auto",
        ),
    ],
    ids=["stage", "method", "micro-batch", "recomputation"],
)
def test_a_refusal_names_what_was_tied_down(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(DoesNotFit, match=remedy):
        chosen(gpu_spec(**changes), 2)


def test_less_data_than_one_batch_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="makes 31 sequences, fewer than one global batch of 32"):
        chosen(gpu_spec(), 80, sequences=31)
    assert chosen(gpu_spec(), 80, sequences=32).world_size == 2
