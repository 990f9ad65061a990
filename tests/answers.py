"""What trainers answer and report, with sane defaults; tests/builders.py passes all of it on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tunewright.core.model import Manifest, ProgressReport
from tunewright.core.outcome import timestamp
from tunewright_trainer import contract

NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


def make_facts(*, sequences: int = 400, parameters: int = 135_000_000, **data: Any) -> contract.Facts:
    """Answer of ``prepare``."""
    return contract.Facts(
        prepared_key="k-0123",
        model=make_model_facts(parameters=parameters),
        data=make_data_facts(sequences=sequences, **data),
    )


def make_model_facts(**changes: Any) -> contract.ModelFacts:
    """Facts of a model of SmolLM2-135M's shape."""
    values: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "parameters": 135_000_000,
        "trainable_parameters": 4_900_000,
        "hidden_size": 576,
        "layers": 30,
        "attention_heads": 9,
        "key_value_heads": 3,
        "intermediate_size": 1536,
        "vocabulary_size": 49152,
        "max_position_embeddings": 8192,
        "tied_embeddings": True,
        "dtype": "bfloat16",
        "size_bytes": 270_000_000,
    }
    return contract.ModelFacts(**(values | changes))


def make_data_facts(**changes: Any) -> contract.DataFacts:
    """Facts of a small packed chat data set."""
    values: dict[str, Any] = {
        "rows": 1000,
        "validation_rows": 50,
        "tokens": 100_000,
        "loss_tokens": 60_000,
        "truncated_rows": 3,
        "sequences": 400,
        "sequence_length": 256,
        "packed": True,
        "format": "Messages",
        "fingerprint": "sha256:abc",
    }
    return contract.DataFacts(**(values | changes))


def make_result(**changes: Any) -> contract.TrainResult:
    """Answer of ``train`` from rank 0."""
    values: dict[str, Any] = {
        "rank": 0,
        "world_size": 2,
        "step": 100,
        "total_steps": 100,
        "epoch": 1.0,
        "loss": 1.25,
        "tokens": 102_400,
        "train_seconds": 60.0,
        "adapter": "pvc://adapters/support-bot/.tunewright/final",
    }
    return contract.TrainResult(**(values | changes))


def make_export(**changes: Any) -> contract.ExportResult:
    """Answer of ``export``."""
    output = contract.OutputFacts(
        destination="pvc://adapters/support-bot",
        format="Adapter",
        digest="sha256:feed",
        size_bytes=20_000_000,
        uri="pvc://adapters/support-bot/adapter",
    )
    return contract.ExportResult(outputs=[output], **changes)


def make_failure(
    reason: contract.Reason = contract.Reason.INTERNAL_ERROR, **changes: Any
) -> contract.Failure:
    """Answer of a command that failed."""
    values: dict[str, Any] = {"message": "Something broke in the ranks.", "rank": 1, "step": 40}
    return contract.Failure(reason=reason, **(values | changes))


def make_report(
    pod: Manifest | str,
    step: int | None = 10,
    *,
    received: datetime = NOW,
    advanced: datetime | None = None,
    percent: int | None = None,
    remaining_seconds: int | None = None,
    **values: Any,
) -> ProgressReport:
    """The newest progress post, from ``pod``."""
    told: dict[str, Any] = {"step": step, "total_steps": 100, "loss": 2.0} | values
    return ProgressReport(
        received_at=timestamp(received),
        advanced_at=timestamp(advanced or received),
        pod_uid=pod if isinstance(pod, str) else pod["metadata"]["uid"],
        percent=percent,
        remaining_seconds=remaining_seconds,
        values={key: value for key, value in told.items() if value is not None},
    )
