"""Chooses what a spec leaves open: ZeRO stage, micro-batch, recomputation, precision; or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tunewright.api.spec import FineTuneJobSpec
from tunewright.planner.estimate import GIB, RankMemory, rank_memory
from tunewright_trainer.contract import DataFacts, ModelFacts

LARGEST_MICRO_BATCH = 64
CPU_MICRO_BATCH = 1
"""On CPUs memory is plentiful and larger batches are no faster."""


class DoesNotFit(Exception):
    """No choice fits; the message says by how much, and what would help."""


@dataclass(frozen=True)
class Choice:
    """What was chosen and why; becomes status.plan."""

    zero_stage: Literal[0, 1, 2, 3]
    micro_batch: int
    gradient_accumulation: int
    world_size: int
    precision: Literal["BF16", "FP16", "FP32"]
    activation_checkpointing: bool
    memory: RankMemory
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    zero_stage: Literal[0, 1, 2, 3]
    activation_checkpointing: bool
    micro_batch: int


def choose(
    spec: FineTuneJobSpec, model: ModelFacts, data: DataFacts, device_memory_bytes: int | None
) -> Choice:
    """The first of the preferred candidates whose estimate fits ``device_memory_bytes`` (None: unknown).

    Preference: no recomputation before recomputation, lower ZeRO stage before higher, and then the largest
    micro-batch that fits. The global batch is never changed.

    Raises DoesNotFit.
    """
    _check_data(spec, data)
    precision = _precision(spec)
    world_size = spec.compute.world_size()
    candidates = list(_candidates(spec, world_size))
    estimates = {
        candidate: _estimate(candidate, model, data, world_size, precision) for candidate in candidates
    }
    fitting = [
        candidate
        for candidate in candidates
        if device_memory_bytes is None or estimates[candidate].total <= device_memory_bytes
    ]
    if not fitting:
        raise DoesNotFit(_refusal(spec, min(e.total for e in estimates.values()), device_memory_bytes or 0))
    best = fitting[0]
    return Choice(
        zero_stage=best.zero_stage,
        micro_batch=best.micro_batch,
        gradient_accumulation=spec.training.batch.global_size // (best.micro_batch * world_size),
        world_size=world_size,
        precision=precision,
        activation_checkpointing=best.activation_checkpointing,
        memory=estimates[best],
        reasons=_reasons(spec, best, estimates[best], device_memory_bytes, world_size),
    )


def _check_data(spec: FineTuneJobSpec, data: DataFacts) -> None:
    batch = spec.training.batch.global_size
    if data.sequences < batch:
        raise DoesNotFit(
            f"The data makes {data.sequences} sequences, fewer than one global batch of {batch}. Lower "
            "training.batch.global, lower dataset.maxSequenceLength, or add data."
        )


def _precision(spec: FineTuneJobSpec) -> Literal["BF16", "FP16", "FP32"]:
    if spec.training.precision != "Auto":
        return spec.training.precision
    return "BF16" if spec.compute.gpus_per_node else "FP32"


def _candidates(spec: FineTuneJobSpec, world_size: int) -> Iterator[_Candidate]:
    wanted = spec.deepspeed.zero_stage
    automatic: tuple[Literal[0, 1, 2, 3], ...] = (2, 3)
    stages = automatic if wanted == "Auto" else (wanted,)
    recompute = {"Always": (True,), "Never": (False,), "Auto": (False, True)}[
        spec.training.activation_checkpointing
    ]
    for checkpointing in recompute:
        for stage in stages:
            for micro in _micro_batches(spec, world_size):
                yield _Candidate(stage, checkpointing, micro)


def _micro_batches(spec: FineTuneJobSpec, world_size: int) -> list[int]:
    """Micro-batches to try, largest first; each divides the global batch over the ranks."""
    wanted = spec.training.batch.micro
    if wanted != "Auto":
        return [wanted]
    if not spec.compute.gpus_per_node:
        return [CPU_MICRO_BATCH]
    per_rank = spec.training.batch.global_size // world_size
    return [micro for micro in range(min(per_rank, LARGEST_MICRO_BATCH), 0, -1) if per_rank % micro == 0]


def _estimate(
    candidate: _Candidate, model: ModelFacts, data: DataFacts, world_size: int, precision: str
) -> RankMemory:
    return rank_memory(
        model,
        zero_stage=candidate.zero_stage,
        world_size=world_size,
        micro_batch=candidate.micro_batch,
        sequence_length=data.sequence_length,
        weight_bytes=4 if precision == "FP32" else 2,
        activation_checkpointing=candidate.activation_checkpointing,
    )


def _reasons(
    spec: FineTuneJobSpec, best: _Candidate, memory: RankMemory, device: int | None, world_size: int
) -> tuple[str, ...]:
    asked = (
        "as asked"
        if spec.deepspeed.zero_stage != "Auto"
        else ("it fits" if best.zero_stage == 2 else "ZeRO-2 does not fit")
    )
    known = f"of {device / GIB:.1f} GiB" if device else "(device memory unknown)"
    return (
        f"ZeRO-{best.zero_stage}: {asked}.",
        f"Micro-batch {best.micro_batch} on {world_size} ranks keeps the global batch of "
        f"{spec.training.batch.global_size}; estimated {memory.total / GIB:.1f} GiB {known} per rank.",
        "Activations are recomputed." if best.activation_checkpointing else "Activations are kept.",
    )


def _refusal(spec: FineTuneJobSpec, smallest: int, device: int) -> str:
    remedies = []
    if spec.dataset.max_sequence_length > 512:
        remedies.append(f"dataset.maxSequenceLength: {spec.dataset.max_sequence_length // 2}")
    if spec.deepspeed.zero_stage not in ("Auto", 3):
        remedies.append("deepspeed.zeroStage: Auto")
    if spec.training.activation_checkpointing == "Never":
        remedies.append("training.activationCheckpointing: Auto")
    if spec.training.batch.micro != "Auto":
        remedies.append("training.batch.micro: Auto")
    if spec.method.type == "Full":
        remedies.append("method.type: LoRA")
    remedies += [
        "more GPUs (compute.nodes, compute.gpusPerNode)",
        "GPUs with more memory (compute.nodeSelector)",
    ]
    return (
        f"A rank needs at least {smallest / GIB:.1f} GiB and a GPU has {device / GIB:.1f} GiB. "
        f"Try: {'; '.join(remedies[:3])}."
    )
