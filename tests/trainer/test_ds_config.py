"""DeepSpeed's configuration follows from the job's fields; raw JSON adds to them and never contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.gang_rig import Site
from tunewright_trainer import ds_config
from tunewright_trainer.contract import ExitCode, TrainerConfig
from tunewright_trainer.errors import TrainerError


def job(**changes: Any) -> TrainerConfig:
    return Site(Path("unused")).config("job", **changes)


def test_batch_sizes_and_clipping_are_always_rendered() -> None:
    rendered = ds_config.render(job(training={"max_grad_norm": 0.5}), world_size=2)
    assert rendered["train_batch_size"] == 8
    assert rendered["train_micro_batch_size_per_gpu"] == 2
    assert rendered["gradient_accumulation_steps"] == 2
    assert rendered["gradient_clipping"] == 0.5


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_reduction_never_overlaps_backward(stage: int) -> None:
    zero = ds_config.render(job(deepspeed={"zero_stage": stage}), 2)["zero_optimization"]
    assert zero["stage"] == stage
    assert zero["overlap_comm"] is False


def test_no_optimizer_is_configured_so_that_nothing_is_compiled() -> None:
    assert "optimizer" not in ds_config.render(job(), 2)


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"), [("BF16", True, False), ("FP16", False, True), ("FP32", False, False)]
)
def test_precision(precision: str, bf16: bool, fp16: bool) -> None:
    rendered = ds_config.render(job(training={"precision": precision}), 2)
    assert (rendered["bf16"]["enabled"], rendered["fp16"]["enabled"]) == (bf16, fp16)


def test_adapter_gradients_are_summed_in_fp32_where_deepspeed_can() -> None:
    bf16 = {"precision": "BF16"}
    assert ds_config.render(job(training=bf16), 2)["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "data_types" not in ds_config.render(job(training=bf16, deepspeed={"zero_stage": 0}), 2)
    full = {"type": "Full", "lora": None}
    assert "data_types" not in ds_config.render(job(training=bf16, method=full), 2)


def test_raw_json_is_merged_into_objects_and_last() -> None:
    raw = {"zero_optimization": {"reduce_bucket_size": 7}, "wall_clock_breakdown": True}
    rendered = ds_config.render(job(deepspeed={"raw": raw}), 2)
    assert rendered["zero_optimization"]["reduce_bucket_size"] == 7
    assert rendered["zero_optimization"]["stage"] == 2
    assert rendered["wall_clock_breakdown"] is True


def test_merging_changes_neither_side() -> None:
    base: dict[str, Any] = {"a": {"b": 1}}
    over: dict[str, Any] = {"a": {"c": [2]}}
    merged = ds_config.merge(base, over)
    merged["a"]["c"].append(3)
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": [2]}})


@pytest.mark.parametrize(
    "raw",
    [
        {"train_micro_batch_size_per_gpu": 1},
        {"gradient_clipping": 5.0},
        {"zero_optimization": {"stage": 3}},
        {"fp16": {"enabled": True}},
    ],
    ids=lambda raw: next(iter(raw)),
)
def test_raw_json_that_contradicts_a_field_is_refused_by_name(raw: dict[str, Any]) -> None:
    with pytest.raises(TrainerError) as caught:
        ds_config.render(job(deepspeed={"raw": raw}), 2)
    assert caught.value.exit_code == ExitCode.CONFIG_INVALID
    assert next(iter(raw)) in caught.value.message


def test_raw_json_may_repeat_a_field_or_say_auto() -> None:
    raw = {"train_batch_size": "auto", "gradient_clipping": 1.0}
    assert ds_config.render(job(deepspeed={"raw": raw}), 2)["gradient_clipping"] == 1.0


def test_batch_sizes_that_do_not_multiply_are_refused_with_the_figures() -> None:
    with pytest.raises(TrainerError, match=r"global batch is 8.*2 x accumulation 2 x 4 ranks makes 16"):
        ds_config.render(job(), world_size=4)
