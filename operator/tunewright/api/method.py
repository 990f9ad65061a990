"""spec.method: which weights are trained, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.base import Rule, SpecModel


class LoraSpec(SpecModel):
    """Low-rank adapters (LoRA)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the adapter matrices."""
    alpha: Annotated[float, Field(gt=0, le=8192)] = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped while training."""
    target_modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=64)
    ] = ["all-linear"]
    """Names of the modules that get an adapter, such as q_proj; all-linear means every linear layer
    but the head."""


class MethodSpec(SpecModel):
    """How the model is tuned."""

    type: Literal["LoRA", "Full"] = "LoRA"
    """LoRA trains small adapter matrices; Full trains every weight."""
    lora: LoraSpec | None = None
    """Settings of type LoRA; without it LoRA's defaults hold."""

    RULES = (
        Rule(
            "self.type == 'LoRA' || !has(self.lora)",
            lambda m: m.type == "LoRA" or m.lora is None,
            "method.lora is for type LoRA: remove the lora block, or write method.type: LoRA",
        ),
    )

    def effective_lora(self) -> LoraSpec | None:
        """The LoRA settings that hold: the block, its defaults without one, None for another type."""
        if self.type != "LoRA":
            return None
        return self.lora or LoraSpec()
