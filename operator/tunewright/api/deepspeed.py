"""spec.deepspeed: how training is spread over ranks.

Keys of the raw config that a typed field decides are refused: two places would mean two truths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from tunewright.api.base import RULES_KEY, IntOrString, SpecModel, rule_error

_ANY_MAP: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_COUNT: dict[str, Any] = {"x-kubernetes-int-or-string": True}  # people write "auto" there


@dataclass(frozen=True)
class OwnedKey:
    """A key of a DeepSpeed config that a typed field decides."""

    key: str
    """Dots descend: ``zero_optimization.stage``."""
    field: str
    """The field to write instead."""
    schema: Mapping[str, Any]
    """What the API server needs to see the key at all."""

    @property
    def message(self) -> str:
        return f"{self.key} is set by {self.field}: remove it from deepspeed.config and write that field"


OWNED_KEYS = (
    OwnedKey("train_batch_size", "training.batch.global", _COUNT),
    OwnedKey("train_micro_batch_size_per_gpu", "training.batch.micro", _COUNT),
    OwnedKey("gradient_accumulation_steps", "training.batch.global and training.batch.micro", _COUNT),
    OwnedKey("gradient_clipping", "training.maxGradNorm", {"type": "number"}),
    OwnedKey("optimizer", "training.optimizer", _ANY_MAP),
    OwnedKey("scheduler", "training.schedule", _ANY_MAP),
    OwnedKey("bf16.enabled", "training.precision", {"type": "boolean"}),
    OwnedKey("fp16.enabled", "training.precision", {"type": "boolean"}),
    OwnedKey("zero_optimization.stage", "deepspeed.zeroStage", _COUNT),
)


def _refuse_owned_keys(config: Any) -> Any:
    for owned in OWNED_KEYS:
        if isinstance(config, dict) and _get(config, owned.key) is not None:
            raise rule_error(owned.message)
    return config


def _get(config: Any, key: str) -> Any:
    """The value at ``key``; None where there is none. A section that is no map is refused."""
    path: list[str] = []
    for part in key.split("."):
        if not isinstance(config, dict):
            raise rule_error(f"{'.'.join(path)} must be a map, as DeepSpeed documents it")
        path.append(part)
        config = config.get(part)
        if config is None:
            return None
    return config


def _raw_config_schema() -> dict[str, Any]:
    """Schema of the raw config: anything goes, but CEL can see, and refuse, the keys that we own."""
    schema: dict[str, Any] = {**_ANY_MAP, "properties": {}, RULES_KEY: []}
    for owned in OWNED_KEYS:
        *sections, leaf = owned.key.split(".")
        properties = schema["properties"]
        for section in sections:
            described = {"description": f"DeepSpeed's {section}, as DeepSpeed documents it."}
            new = {**described, **_ANY_MAP, "properties": {}}
            properties = properties.setdefault(section, new)["properties"]
        properties[leaf] = {"description": f"Refused: use {owned.field}.", **owned.schema}
        there = [f"has(self.{section})" for section in sections] + [f"has(self.{owned.key})"]
        schema[RULES_KEY].append({"rule": f"!({' && '.join(there)})", "message": owned.message})
    return schema


class DeepSpeedSpec(SpecModel):
    """How training is spread over ranks."""

    zero_stage: Annotated[
        Literal["Auto", 0, 1, 2, 3],
        IntOrString(r"Auto|[0-3]", "write Auto, 0, 1, 2 or 3", digits_to_int=True),
    ] = "Auto"
    """ZeRO stage: what is split over the ranks. Auto takes 2, or 3 where 2 does not fit in memory."""
    config: (
        Annotated[dict[str, Any], BeforeValidator(_refuse_owned_keys), WithJsonSchema(_raw_config_schema())]
        | None
    ) = None
    """Raw DeepSpeed configuration, merged last. Keys that a typed field sets are refused."""
