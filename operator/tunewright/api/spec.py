"""The FineTuneJob's spec as a whole: every field that works, and none that does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunewright.api.base import Rule, SecretRef, SpecModel
from tunewright.api.compute import (
    ComputeSpec,
    EnvVarSpec,
    LocalObjectRef,
    PodSecurityContextSpec,
    PodTemplateSpec,
    ResourcesSpec,
    TolerationSpec,
)
from tunewright.api.dataset import ColumnsSpec, ConfigMapRef, DatasetSpec, DataSourceSpec
from tunewright.api.deepspeed import DeepSpeedSpec
from tunewright.api.lifecycle import CheckpointSpec, LifecycleSpec, OutputSpec, WorkspaceSpec
from tunewright.api.method import LoraSpec, MethodSpec
from tunewright.api.model import ModelSpec
from tunewright.api.training import (
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    BatchSpec,
    EvaluationSpec,
    OptimizerSpec,
    ScheduleSpec,
    TrainingSpec,
)

__all__ = [
    "DEFAULT_EPOCHS",
    "DEFAULT_LEARNING_RATE",
    "BatchSpec",
    "CheckpointSpec",
    "ColumnsSpec",
    "ComputeSpec",
    "ConfigMapRef",
    "DataSourceSpec",
    "DatasetSpec",
    "DeepSpeedSpec",
    "EnvVarSpec",
    "EvaluationSpec",
    "FineTuneJobSpec",
    "LifecycleSpec",
    "LocalObjectRef",
    "LoraSpec",
    "MethodSpec",
    "ModelSpec",
    "OptimizerSpec",
    "OutputSpec",
    "PodSecurityContextSpec",
    "PodTemplateSpec",
    "ResourcesSpec",
    "ScheduleSpec",
    "SecretRef",
    "TolerationSpec",
    "TrainingSpec",
    "WorkspaceSpec",
    "parse_spec",
]


def _batch_divides(spec: FineTuneJobSpec) -> bool:
    micro = spec.training.batch.micro
    per_pass = spec.compute.world_size() * (1 if micro == "Auto" else micro)
    return spec.training.batch.global_size % per_pass == 0


_WORLD_SIZE = (
    "self.compute.nodes * (self.compute.gpusPerNode > 0 ? self.compute.gpusPerNode"
    " : has(self.compute.processesPerNode) ? self.compute.processesPerNode : 1)"
)
_MICRO = "(string(self.training.batch.micro) == 'Auto' ? 1 : int(string(self.training.batch.micro)))"


class FineTuneJobSpec(SpecModel):
    """What to tune, on what, with what, and where the result goes."""

    task: Literal["ChatCompletion", "TextGeneration"] = "ChatCompletion"
    """What the model learns. ChatCompletion renders conversations with the chat template; TextGeneration
    reads text as it is."""
    model: ModelSpec
    """The base model."""
    dataset: DatasetSpec
    """The data."""
    method: MethodSpec = MethodSpec()
    """How the model is tuned."""
    training: TrainingSpec = TrainingSpec()
    """The optimisation."""
    deepspeed: DeepSpeedSpec = DeepSpeedSpec()
    """How training is spread over ranks."""
    compute: ComputeSpec = ComputeSpec()
    """Where the ranks run."""
    workspace: WorkspaceSpec | None = None
    """Where checkpoints and prepared data are kept; beside output.destination when absent."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When training is saved."""
    output: OutputSpec
    """Where the result goes."""
    lifecycle: LifecycleSpec = LifecycleSpec()
    """When the job pauses, gives up and goes away; can be changed at any time."""
    pod_template: PodTemplateSpec | None = None
    """What all pods of the job carry."""

    RULES = (
        Rule(
            # A list of one gives the divisor a name; where it is no divisor another rule speaks.
            f"[{_WORLD_SIZE} * {_MICRO}].all(n, n < 1 || self.training.batch.global % n == 0)",
            _batch_divides,
            "training.batch.global must be a multiple of the number of ranks (compute.nodes times"
            " gpusPerNode, or times processesPerNode on CPUs) times batch.micro: change one of them",
        ),
    )


def parse_spec(spec: Mapping[str, Any]) -> FineTuneJobSpec:
    """The spec of a manifest, which spells its fields in camelCase.

    Raises pydantic.ValidationError.
    """
    return FineTuneJobSpec.model_validate(spec, by_alias=True, by_name=False)
