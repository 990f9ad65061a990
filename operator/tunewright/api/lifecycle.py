"""spec.workspace, checkpoint, output and lifecycle: what is kept, where, and how long a job may live."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.base import FolderUri, SpecModel

Seconds = Annotated[int, Field(ge=1, le=315_360_000)]


class WorkspaceSpec(SpecModel):
    """Where checkpoints, prepared data and the adapter before its export are kept."""

    source: FolderUri
    """pvc://claim or pvc://claim/folder, mounted by every pod of the job. Whoever can write there can run
    code in the trainer, because checkpoints are loaded from it: share it only with those who may."""


class CheckpointSpec(SpecModel):
    """When training is saved; whichever comes first."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 200
    """After so many optimiser steps."""
    every_minutes: Annotated[int, Field(ge=1, le=10_080)] = 15
    """After so many minutes."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """How many checkpoints are kept."""


class OutputSpec(SpecModel):
    """Where the result goes."""

    destination: FolderUri
    """pvc://claim or pvc://claim/folder. Another job's result there is never overwritten."""
    formats: Annotated[list[Literal["Adapter"]], Field(min_length=1, max_length=1)] = ["Adapter"]
    """What is written. Adapter is what was trained: the adapter of LoRA, the whole model of Full."""


class LifecycleSpec(SpecModel):
    """When a job pauses, gives up and goes away. The only part of a spec that can be changed later."""

    suspend: bool = False
    """Saves a checkpoint, stops the pods and frees the nodes; false goes on from the checkpoint."""
    active_deadline_seconds: Seconds | None = None
    """The job fails when it has not succeeded so many seconds after its start; suspended time counts."""
    progress_deadline_seconds: Seconds = 1800
    """An attempt ends with ProgressStalled when no step was made for so many seconds."""
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    """Restarts from the last checkpoint after failures of the training itself."""
    max_preemptions: Annotated[int, Field(ge=0, le=10_000)] = 20
    """Restarts from the last checkpoint after lost nodes, evicted and deleted pods; counted apart."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """A finished job deletes itself after so many seconds. Beware: a GitOps tool would create it again."""
