"""spec.training: the optimisation itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.base import IntOrString, Rule, SpecModel

DEFAULT_EPOCHS = 3
"""Epochs of a job that gives neither epochs nor maxSteps."""
DEFAULT_LEARNING_RATE = {"LoRA": 2e-4, "Full": 2e-5}
"""Learning rate by method.type of a job that gives none."""

Auto = Literal["Auto"]


class ScheduleSpec(SpecModel):
    """How the learning rate moves."""

    type: Literal["Cosine", "Linear", "Constant"] = "Cosine"
    """Shape of the decay after warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of all steps in which the learning rate rises from zero."""


class OptimizerSpec(SpecModel):
    """The optimiser."""

    type: Literal["AdamW"] = "AdamW"
    """Kind of optimiser."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the second moment."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the denominator."""


MicroBatch = Annotated[
    Auto | int,
    IntOrString(r"Auto|[1-9][0-9]{0,3}", "write Auto or a number from 1 to 9999", digits_to_int=True),
]


class BatchSpec(SpecModel):
    """How many sequences make an optimiser step."""

    global_size: Annotated[
        int, Field(ge=1, le=65_536, validation_alias="global", serialization_alias="global")
    ] = 32
    """Sequences per optimiser step over all ranks. It shapes the result, so the number of ranks never
    changes it."""
    micro: MicroBatch = "Auto"
    """Sequences per rank and forward pass. Auto takes what fits in memory."""


class EvaluationSpec(SpecModel):
    """When the validation loss is measured."""

    every_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """After so many epochs; without everySteps the default is 1."""
    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """After so many optimiser steps."""

    RULES = (
        Rule(
            "!(has(self.everyEpochs) && has(self.everySteps))",
            lambda e: e.every_epochs is None or e.every_steps is None,
            "write either evaluation.everyEpochs or evaluation.everySteps",
        ),
    )


class TrainingSpec(SpecModel):
    """The optimisation."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Passes over the training data; or use maxSteps. With neither, 3 epochs."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimiser steps; or use epochs."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Highest learning rate. Without one: 2.0e-4 for LoRA, 2.0e-5 for Full."""
    schedule: ScheduleSpec = ScheduleSpec()
    """How the learning rate moves."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimiser."""
    batch: BatchSpec = BatchSpec()
    """How many sequences make an optimiser step."""
    precision: Literal["Auto", "BF16", "FP16", "FP32"] = "Auto"
    """Number format of the training. Auto takes BF16."""
    activation_checkpointing: Literal["Auto", "Always", "Never"] = "Auto"
    """Recomputes activations in the backward pass to save memory. Auto does it when memory is short."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Gradients are scaled down to this norm; 0 turns clipping off."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of adapter initialisation, data order, dropout and the validation split."""
    evaluation: EvaluationSpec | None = None
    """When the validation loss is measured; only with validation data."""

    RULES = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            lambda t: t.epochs is None or t.max_steps is None,
            "write either training.epochs or training.maxSteps",
        ),
    )
