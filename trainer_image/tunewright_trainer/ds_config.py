"""The DeepSpeed configuration of a job: one pure function from TrainerConfig to DeepSpeed's JSON.

The optimizer is torch's AdamW, handed to DeepSpeed by the trainer: DeepSpeed's own Adams compile C++ or
CUDA at the first step, which needs a compiler in the image and gains nothing over torch's fused one.
"""

from __future__ import annotations

import copy
from typing import Any

from tunewright_trainer.contract import Reason, TrainerConfig, TrainingConfig
from tunewright_trainer.errors import TrainerError

REDUCE_BUCKET_ELEMENTS = 50_000_000
"""Elements per gradient bucket: large enough to hide network latency between nodes, 100 MB in bf16."""

_OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
    "zero_optimization.stage",
)
"""Keys that follow from typed fields; the raw configuration may repeat them but not contradict them."""


def render(config: TrainerConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration for ``world_size`` ranks; the user's raw JSON is merged last.

    Raises ConfigInvalid if the raw JSON contradicts a typed field or the batch sizes don't multiply.
    """
    training, deepspeed = config.training, config.deepspeed
    if training is None or deepspeed is None:
        raise TrainerError(Reason.CONFIG_INVALID, "The configuration has no training plan yet.")
    check_batch(training, world_size)
    ours: dict[str, Any] = {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": training.gradient_accumulation,
        # Always rendered: left out, DeepSpeed clips nothing although the trainer was told to.
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": training.precision == "BF16"},
        "fp16": {"enabled": training.precision == "FP16"},
        "zero_optimization": _zero(deepspeed.zero_stage),
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"tag_validation": "Fail"},
        # Per-step printing is the trainer's.
        "steps_per_print": 1 << 31,
        "wall_clock_breakdown": False,
    }
    if training.precision == "BF16" and config.method.type == "LoRA" and deepspeed.zero_stage >= 1:
        # Summed in bf16, small micro-batch gradients vanish. An adapter is small enough to sum in fp32.
        ours["data_types"] = {"grad_accum_dtype": "fp32"}
    _refuse_contradictions(ours, deepspeed.raw)
    return merge(ours, deepspeed.raw)


def check_batch(training: TrainingConfig, world_size: int) -> None:
    """Raise ConfigInvalid unless global batch = micro-batch x accumulation x world size."""
    product = training.micro_batch * training.gradient_accumulation * world_size
    if product != training.global_batch:
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"The global batch is {training.global_batch}, but micro-batch {training.micro_batch} x "
            f"accumulation {training.gradient_accumulation} x {world_size} ranks makes {product}.",
            "Choose batch sizes that multiply to the global batch, or leave them to the planner.",
        )


def _zero(stage: int) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
    if stage >= 1:
        # Overlapping reduction with backward has produced NaN losses (DeepSpeed #4298): off until measured.
        zero |= {"overlap_comm": False, "contiguous_gradients": True}
        zero |= {
            "reduce_bucket_size": REDUCE_BUCKET_ELEMENTS,
            "allgather_bucket_size": REDUCE_BUCKET_ELEMENTS,
        }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": REDUCE_BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": 100_000,
            # Weights are gathered piece by piece by our own writer, never as a whole model on one rank.
            "stage3_gather_16bit_weights_on_model_save": False,
        }
        del zero["allgather_bucket_size"]
    return zero


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``, object by object; neither is changed."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _refuse_contradictions(ours: dict[str, Any], raw: dict[str, Any]) -> None:
    for path in _OURS:
        mine, theirs = _lookup(ours, path), _lookup(raw, path)
        if theirs is not None and theirs != "auto" and theirs != mine:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"deepspeed.config sets {path} to {theirs!r}, but the job's own fields make it {mine!r}.",
                f"Leave {path} out of deepspeed.config and set the job's field for it.",
            )


def _lookup(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
