"""The FineTuneJob's status: what the operator tells, in the words that people and GitOps tools read.

Every field is optional: a status grows over a job's life. Unknown fields are ignored when read, so that an
operator can be rolled back below the version that wrote them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.status_base import Bytes, Count, Figure, Sentence, ShortText, StatusModel, Time, Uri
from tunewright.api.status_facts import DataStatus, EstimateStatus, ModelStatus, PlanStatus

__all__ = [
    "ATTEMPT_ENTRIES",
    "CURVE_POINTS",
    "TIMELINE_ENTRIES",
    "AttemptStatus",
    "Condition",
    "CurveStatus",
    "DataStatus",
    "EstimateStatus",
    "FineTuneJobStatus",
    "MeasuredStatus",
    "ModelStatus",
    "NodesStatus",
    "OutputStatus",
    "Phase",
    "PlanStatus",
    "PreparedStatus",
    "ProgressStatus",
    "RestartsStatus",
    "StatusModel",
    "TimelineEntry",
    "WorkersStatus",
]

CURVE_POINTS = 64
TIMELINE_ENTRIES = 32
ATTEMPT_ENTRIES = 10

Phase = Literal[
    "Pending",
    "Preparing",
    "Queued",
    "Provisioning",
    "Starting",
    "Running",
    "Restarting",
    "Exporting",
    "Succeeded",
    "Failed",
    "Suspended",
    "Terminating",
]


class Condition(StatusModel):
    """A condition, as Kubernetes defines them."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Accepted, DataReady, NodesReady, Running, Checkpointed, Succeeded, Failed; and Ready, Reconciling,
    Stalled for GitOps tools."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """CamelCase word for the cause."""
    message: Annotated[str, Field(max_length=32_768)]
    """One sentence for a person."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: Count | None = None
    """Generation of the spec that this was said about."""


class PreparedStatus(StatusModel):
    """The prepared data in the workspace."""

    key: ShortText
    """Name of its folder."""


class ProgressStatus(StatusModel):
    """How far training is; written at most every 30 seconds."""

    step: Count | None = None
    """Optimiser steps done."""
    total_steps: Count | None = None
    """Optimiser steps in all."""
    steps: ShortText | None = None
    """Both in one: 120/600."""
    epoch: Figure = None
    """Passes over the data done."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the steps done, in percent."""
    loss: Figure = None
    """Training loss at this step."""
    eval_loss: Figure = None
    """Newest validation loss."""
    learning_rate: Figure = None
    """Learning rate at this step."""
    grad_norm: Figure = None
    """Norm of the gradients before clipping."""
    tokens_per_second: Figure = None
    """Tokens per second over all ranks."""
    tokens_per_second_per_gpu: Figure = None
    """Tokens per second per GPU, or per rank on CPUs."""
    estimated_completion_time: Time | None = None
    """When training will be done at this pace."""
    last_checkpoint_step: Count | None = None
    """Step of the newest checkpoint."""
    attempt: Count | None = None
    """Attempt that reported this."""
    updated_time: Time | None = None
    """When the trainer reported this."""


class MeasuredStatus(StatusModel):
    """What was measured over the whole run."""

    peak_gpu_memory_bytes: Bytes | None = None
    """Highest memory of any rank's GPU, in bytes."""
    peak_memory_bytes: Bytes | None = None
    """Highest memory of any rank on CPUs, in bytes."""
    gpu_seconds: Figure = None
    """GPUs x seconds of training."""
    train_seconds: Figure = None
    """Seconds of training."""
    tokens: Count | None = None
    """Tokens trained on."""
    trainable_parameters: Count | None = None
    """Weights that were trained."""
    total_parameters: Count | None = None
    """Weights of the model."""
    final_loss: Figure = None
    """Training loss at the last step."""
    final_eval_loss: Figure = None
    """Validation loss at the end."""


class CurveStatus(StatusModel):
    """The loss over the whole run, thinned to few points; steps only rise, over restarts too."""

    steps: Annotated[list[Count], Field(max_length=CURVE_POINTS)] = []
    """Steps of the points."""
    loss: Annotated[list[float], Field(max_length=CURVE_POINTS)] = []
    """Training loss at each step."""
    eval_steps: Annotated[list[Count], Field(max_length=CURVE_POINTS)] = []
    """Steps at which the validation loss was measured."""
    eval_loss: Annotated[list[float], Field(max_length=CURVE_POINTS)] = []
    """Validation loss at each of them."""


class TimelineEntry(StatusModel):
    """Something that happened; events are gone after an hour, this is not."""

    time: Time
    """When it happened."""
    phase: Phase
    """Phase that began."""
    reason: ShortText
    """CamelCase word for the cause."""
    message: Sentence
    """One sentence for a person."""


class AttemptStatus(StatusModel):
    """One life of the worker pods."""

    number: Annotated[int, Field(ge=1)]
    """Counted from 1."""
    started_at: Time
    """When its pods were asked for."""
    ended_at: Time | None = None
    """When it ended."""
    reason: ShortText | None = None
    """Why it ended."""
    message: Sentence | None = None
    """The same in a sentence, with rank and error."""
    rank: Count | None = None
    """Rank that failed."""
    step: Count | None = None
    """Last step that it reported."""
    last_checkpoint_step: Count | None = None
    """Step of the newest checkpoint at its end."""
    resumed_from_step: Count | None = None
    """Step of the checkpoint that it began with; absent for a fresh start."""


class WorkersStatus(StatusModel):
    """Worker pods of the current attempt."""

    desired: Count = 0
    """Pods asked for."""
    ready: Count = 0
    """Pods that run."""
    failed: Count = 0
    """Pods that failed."""


class NodesStatus(StatusModel):
    """Nodes of the current attempt."""

    desired: Count = 0
    """Nodes asked for."""
    ready: Count = 0
    """Nodes that are ready and hold a worker pod."""


class OutputStatus(StatusModel):
    """A result that was written and read back."""

    destination: Uri
    """Where it was to go."""
    format: ShortText
    """What it is."""
    digest: ShortText
    """sha256 over the list of files and their digests."""
    size_bytes: Bytes
    """Size of all files, in bytes."""
    uri: Uri
    """Where it is."""
    adopted: bool | None = None
    """True when the same job's result stood there already and was kept."""


class RestartsStatus(StatusModel):
    """Restarts so far, by who caused them."""

    software: Count = 0
    """Failures of the training itself; bounded by lifecycle.maxRestarts."""
    infrastructure: Count = 0
    """Lost nodes, evicted and deleted pods; bounded by lifecycle.maxPreemptions."""


class FineTuneJobStatus(StatusModel):
    """What the operator observed and decided."""

    observed_generation: Count | None = None
    """Generation of the spec that this status is about."""
    phase: Phase | None = None
    """Where the job is, for people; programs read the conditions."""
    message: Sentence | None = None
    """Why the job is where it is, and what to do about it; one sentence."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Conditions, one per type."""
    started_at: Time | None = None
    """When the operator first took the job up."""
    completed_at: Time | None = None
    """When the job succeeded or failed."""
    plan: PlanStatus | None = None
    """What the planner chose."""
    model: ModelStatus | None = None
    """The model's facts."""
    data: DataStatus | None = None
    """The data's facts."""
    prepared: PreparedStatus | None = None
    """The prepared data."""
    progress: ProgressStatus | None = None
    """How far training is."""
    measured: MeasuredStatus | None = None
    """What was measured over the whole run."""
    curve: CurveStatus | None = None
    """The loss over the whole run."""
    timeline: Annotated[list[TimelineEntry], Field(max_length=TIMELINE_ENTRIES)] = []
    """What happened, newest last."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=ATTEMPT_ENTRIES)] = []
    """The newest lives of the worker pods, newest last."""
    restarts: RestartsStatus | None = None
    """Restarts so far."""
    workers: WorkersStatus | None = None
    """Worker pods."""
    nodes: NodesStatus | None = None
    """Nodes."""
    outputs: Annotated[list[OutputStatus], Field(max_length=8)] = []
    """Results that were written."""
