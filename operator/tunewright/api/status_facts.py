"""status.plan, model and data: what is decided or found out once, before training, and then kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.status_base import Bytes, Count, Figure, Sentence, ShortText, StatusModel, Uri


class EstimateStatus(StatusModel):
    """What the planner expects the job to need."""

    gpu_memory_bytes: Bytes | None = None
    """Peak memory per GPU, in bytes."""
    host_memory_bytes: Bytes | None = None
    """Peak memory per worker pod, in bytes."""
    disk_bytes: Bytes | None = None
    """Space in the workspace, in bytes."""


class PlanStatus(StatusModel):
    """What the planner chose; frozen when first made, so that no operator upgrade changes a running job."""

    spec_hash: ShortText | None = None
    """Hash of everything in the spec that shapes the result."""
    trainer_image: Annotated[str, Field(max_length=512)] | None = None
    """Image of every pod of the job."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    """ZeRO stage."""
    micro_batch: Count | None = None
    """Sequences per rank and forward pass."""
    gradient_accumulation: Count | None = None
    """Forward passes per optimiser step; the global batch is micro-batch x accumulation x ranks."""
    global_batch: Count | None = None
    """Sequences per optimiser step over all ranks."""
    world_size: Count | None = None
    """Ranks of the job."""
    nodes: Count | None = None
    """Worker pods, one per node."""
    processes_per_node: Count | None = None
    """Ranks of each worker pod."""
    gpus: Count | None = None
    """GPUs of the job; 0 on CPUs."""
    device: Literal["cuda", "cpu"] | None = None
    """Where the ranks compute."""
    precision: Literal["BF16", "FP16", "FP32"] | None = None
    """Number format of the training."""
    activation_checkpointing: bool | None = None
    """Whether activations are recomputed in the backward pass."""
    learning_rate: Figure = None
    """Highest learning rate."""
    epochs: Count | None = None
    """Passes over the data; absent when steps are given."""
    max_steps: Count | None = None
    """Optimiser steps; absent when epochs are given."""
    total_steps: Count | None = None
    """Optimiser steps of the whole job."""
    workspace: Uri | None = None
    """Where checkpoints and prepared data are kept."""
    estimated: EstimateStatus | None = None
    """What the job is expected to need."""
    reasons: Annotated[list[Sentence], Field(max_length=32)] | None = None
    """Why each choice was made."""


class ModelStatus(StatusModel):
    """The model's facts, as the prepare step read them."""

    architecture: ShortText
    """Class name in config.json."""
    parameters: Count
    """Weights of the model."""
    trainable_parameters: Count
    """Weights that are trained."""
    hidden_size: Count
    """Width of the hidden states."""
    layers: Count
    """Transformer layers."""
    attention_heads: Count
    """Attention heads per layer."""
    key_value_heads: Count
    """Key-value heads per layer."""
    intermediate_size: Count
    """Width of the feed-forward layers."""
    vocabulary_size: Count
    """Tokens in the vocabulary."""
    max_position_embeddings: Count
    """Longest sequence in tokens that the model was made for."""
    tied_embeddings: bool
    """Whether the output head shares the embedding's weights."""
    dtype: ShortText
    """Number format of the stored weights."""
    revision: ShortText | None = None
    """Commit that an hf:// source was resolved to."""
    size_bytes: Bytes
    """Size of the weight files, in bytes."""
    licence: ShortText | None = None
    """Licence of the model, when it names one."""


class DataStatus(StatusModel):
    """The data's facts, as the prepare step read them."""

    rows: Count
    """Training rows."""
    validation_rows: Count
    """Rows held out for validation."""
    tokens: Count
    """Tokens of all training sequences, without padding."""
    loss_tokens: Count
    """Tokens that carry loss."""
    truncated_rows: Count
    """Rows that were longer than maxSequenceLength and were cut."""
    sequences: Count
    """Sequences per epoch: packed ones, or rows."""
    sequence_length: Count
    """Longest sequence in tokens."""
    packed: bool
    """Whether several rows share a sequence."""
    format: ShortText
    """Shape of the rows that was found."""
    fingerprint: ShortText
    """Digest of data, tokenizer, template and settings."""
    warnings: Annotated[list[Sentence], Field(max_length=32)] = []
    """What looked odd in the data."""
