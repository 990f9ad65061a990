"""Writes a command's one answer into the pod's termination message, within the size that kubelet keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tunewright_trainer.contract import (
    ENV_TERMINATION_LOG,
    FACTS_LIMIT_BYTES,
    TERMINATION_MESSAGE_LIMIT_BYTES,
    ExportResult,
    Facts,
    Failure,
    TrainResult,
)

ELLIPSIS = "…"


def write_answer(
    answer: Facts | TrainResult | ExportResult | Failure, environment: Mapping[str, str] = os.environ
) -> None:
    """Write ``answer`` to the termination message; without one (a run by hand) this does nothing."""
    path = environment.get(ENV_TERMINATION_LOG)
    if path:
        # Not atomically: kubelet mounts this one file, so nothing can be renamed over it.
        Path(path).write_text(render(answer), encoding="utf-8")


def render(answer: Facts | TrainResult | ExportResult | Failure) -> str:
    """``answer`` as JSON that fits: texts are cut where they must be, figures never are."""
    if isinstance(answer, Failure):
        return _render_failure(answer)
    if isinstance(answer, Facts):
        return _render_facts(answer)
    return answer.model_dump_json(exclude_none=True)


def _render_failure(failure: Failure) -> str:
    message_limit, other_limit = 2_400, 600
    while True:
        shorter = failure.model_copy(
            update={
                "message": shorten(failure.message, message_limit),
                "advice": failure.advice and shorten(failure.advice, other_limit),
                "error": failure.error and shorten(failure.error, other_limit),
            }
        )
        text = shorter.model_dump_json(exclude_none=True)
        # Escapes and non-ASCII text take more bytes than characters: go on until it fits.
        if len(text.encode()) <= TERMINATION_MESSAGE_LIMIT_BYTES:
            return text
        message_limit, other_limit = message_limit * 3 // 4, other_limit * 3 // 4


def _render_facts(facts: Facts) -> str:
    warnings = [shorten(warning, 240) for warning in facts.data.warnings]
    while True:
        data = facts.data.model_copy(update={"warnings": warnings})
        text = facts.model_copy(update={"data": data}).model_dump_json(exclude_none=True)
        if len(text.encode()) <= FACTS_LIMIT_BYTES or not warnings:
            return text
        warnings = warnings[:-1]


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + ELLIPSIS
