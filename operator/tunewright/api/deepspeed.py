"""spec.deepspeed: how training is spread over ranks.

Keys of the raw config that a typed field decides are refused: two places would mean two truths.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from tunewright.api.base import IntOrString, SpecModel, rule_error

OWNED_KEYS = {
    "train_batch_size": "training.batch.global",
    "train_micro_batch_size_per_gpu": "training.batch.micro",
    "gradient_accumulation_steps": "training.batch.global and training.batch.micro",
    "gradient_clipping": "training.maxGradNorm",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "bf16.enabled": "training.precision",
    "fp16.enabled": "training.precision",
    "zero_optimization.stage": "deepspeed.zeroStage",
}
"""Key of a DeepSpeed config (dots descend) to the field that sets it."""


def _owned_message(key: str) -> str:
    return f"{key} is set by {OWNED_KEYS[key]}: remove it from deepspeed.config and write that field"


def _get(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return None
        config = config[part]
    return config


def _refuse_owned_keys(config: Any) -> Any:
    for key in OWNED_KEYS:
        if _get(config, key) is not None:
            raise rule_error(_owned_message(key))
    return config


def _raw_config_schema() -> dict[str, Any]:
    """Schema of the raw config: anything goes, but CEL can see (and refuse) the keys that we own.

    Owned scalars are int-or-string because people write ``"auto"`` there.
    """
    properties: dict[str, Any] = {}
    rules = []
    for key, field in OWNED_KEYS.items():
        *parents, leaf = key.split(".")
        owned = {"description": f"Refused: use {field}."}
        leaf_schema: dict[str, Any] = (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            if key in ("optimizer", "scheduler")
            else {"type": "boolean"}
            if leaf == "enabled"
            else {"x-kubernetes-int-or-string": True}
        )
        level, test = properties, "self"
        has = []
        for parent in parents:
            test += f".{parent}"
            has.append(f"has({test})")
            level = level.setdefault(
                parent,
                {
                    "type": "object",
                    "description": f"DeepSpeed's {parent}, as DeepSpeed documents it.",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {},
                },
            )["properties"]
        level[leaf] = leaf_schema | owned
        has.append(f"has({test}.{leaf})")
        rules.append({"rule": f"!({' && '.join(has)})", "message": _owned_message(key)})
    return {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": properties,
        "x-kubernetes-validations": rules,
    }


class DeepSpeedSpec(SpecModel):
    """How training is spread over ranks."""

    zero_stage: Annotated[
        Literal["Auto", 0, 1, 2, 3],
        IntOrString(r"Auto|[0-3]", "write Auto, 0, 1, 2 or 3", digits_to_int=True),
    ] = "Auto"
    """ZeRO stage: what is split over the ranks. Auto takes the lowest stage that fits in memory."""
    config: (
        Annotated[dict[str, Any], BeforeValidator(_refuse_owned_keys), WithJsonSchema(_raw_config_schema())]
        | None
    ) = None
    """Raw DeepSpeed configuration, merged last. Keys that a typed field sets are refused."""
