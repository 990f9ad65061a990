"""What pods without a process answer with: the contract's documents, as a real trainer's would read."""

from __future__ import annotations

import json
from typing import Any

from tunewright.core import names
from tunewright_trainer.contract import (
    DataFacts,
    ExportResult,
    Facts,
    ModelFacts,
    OutputFacts,
    ProgressPost,
    TrainerStatus,
    TrainResult,
    TunewrightProgress,
)

Object = dict[str, Any]

TOTAL_STEPS = 1000
SEQUENCES = 100_000
DIGEST = "sha256:" + "0" * 64

# Figures of SmolLM2-135M and of a data set large enough for any global batch.
FACTS = Facts(
    prepared_key="0" * 16,
    model=ModelFacts(
        architecture="LlamaForCausalLM",
        parameters=134_515_008,
        trainable_parameters=4_884_480,
        hidden_size=576,
        layers=30,
        attention_heads=9,
        key_value_heads=3,
        intermediate_size=1536,
        vocabulary_size=49_152,
        max_position_embeddings=8192,
        tied_embeddings=True,
        dtype="bfloat16",
        size_bytes=269_060_552,
        licence="apache-2.0",
    ),
    data=DataFacts(
        rows=400_000,
        validation_rows=0,
        tokens=180_000_000,
        loss_tokens=90_000_000,
        truncated_rows=12,
        sequences=SEQUENCES,
        sequence_length=2048,
        packed=True,
        format="Messages",
        fingerprint=DIGEST,
    ),
).model_dump_json()


def termination_message(pod: Object) -> str:
    """The answer of the pod's trainer container, by the component that its label names.

    Raises KeyError for a pod that is not the operator's.
    """
    labels = pod["metadata"]["labels"]
    component = labels[names.LABEL_COMPONENT]
    if component == names.COMPONENT_PREPARE:
        return FACTS
    if component == names.COMPONENT_EXPORT:
        return _export_result(labels[names.LABEL_JOB_NAME])
    return _train_result(rank_of(pod), world_size_of(pod))


def rank_of(pod: Object) -> int:
    """One rank per pod: its completion index."""
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def world_size_of(pod: Object) -> int:
    """PET_NNODES of the trainer container."""
    environment = pod["spec"]["containers"][0]["env"]
    return int(next(entry["value"] for entry in environment if entry["name"] == "PET_NNODES"))


def progress_post(step: int) -> Object:
    """The body of a progress post after ``step`` steps."""
    progress = TunewrightProgress(step=step, total_steps=TOTAL_STEPS, loss=loss_at(step), epoch=0.0)
    status = TrainerStatus(progress_percentage=min(100, 100 * step // TOTAL_STEPS), tunewright=progress)
    body: Object = json.loads(
        ProgressPost(trainer_status=status).model_dump_json(by_alias=True, exclude_none=True)
    )
    return body


def loss_at(step: int) -> float:
    """A curve that falls, so that each post differs from the one before."""
    return round(2.0 + 1.0 / (1 + step), 6)


def _train_result(rank: int, world_size: int) -> str:
    result = TrainResult(rank=rank, world_size=world_size, step=TOTAL_STEPS, total_steps=TOTAL_STEPS)
    if rank == 0:
        update = {"loss": loss_at(TOTAL_STEPS), "epoch": 3.0, "tokens": 1_000_000, "train_seconds": 60.0}
        result = result.model_copy(update=update)
    return result.model_dump_json(exclude_none=True)


def _export_result(job: str) -> str:
    where = f"pvc://bench/out/{job}"
    output = OutputFacts(destination=where, format="Adapter", digest=DIGEST, size_bytes=1, uri=where)
    return ExportResult(outputs=[output]).model_dump_json()
