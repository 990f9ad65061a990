"""Case, and worlds in short for the table of test_plan.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.builders import (
    NOW,
    SETTINGS,
    make_attempt,
    make_batch_job,
    make_job,
    make_pod,
    make_status,
    make_world,
)
from tunewright.core import names
from tunewright.core.model import Manifest, World
from tunewright.core.outcome import timestamp
from tunewright.core.settings import OperatorSettings

PREPARE, TRAIN, EXPORT = names.COMPONENT_PREPARE, names.COMPONENT_TRAIN, names.COMPONENT_EXPORT
JUST_NOW = NOW - timedelta(seconds=1)
NO_PROGRESS = OperatorSettings(trainer_image="tunewright/trainer:0.1.0")


@dataclass(frozen=True)
class Case:
    """``create`` and ``delete`` hold ``Kind/name``; None for requeue: not looked at."""

    id: str
    world: World
    phase: str
    reason: str
    message: str = ""
    create: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    requeue: float | None = None
    warning: bool | None = None
    written: bool = True
    now: datetime = NOW
    settings: OperatorSettings = SETTINGS
    expect: dict[str, Any] = field(default_factory=dict)
    """Further fields of the Plan, or of the status with a leading dot."""


def job(status: dict[str, Any] | None = None, **rest: Any) -> Manifest:
    return make_job(status=status, **rest)


def cpu(component: str, state: str = "Active", *pods: dict[str, Any], **rest: Any) -> list[Manifest]:
    """A prepare or export Job with pods of these properties."""
    own = make_batch_job(component, state=state, **rest)
    return [own, *(make_pod(own, i, **pod) for i, pod in enumerate(pods))]


def gang(*pods: dict[str, Any], state: str = "Active", attempt: int = 1, **rest: Any) -> list[Manifest]:
    """A worker Job with pods of these properties, each on its own node."""
    own = make_batch_job(TRAIN, attempt=attempt, state=state, **rest)
    nodes = ("node-a", "node-b")
    return [own, *(make_pod(own, i, **({"node": nodes[i % 2]} | pod)) for i, pod in enumerate(pods))]


def running(attempt: int = 1) -> list[Manifest]:
    return gang({}, {}, attempt=attempt)


def exit_of(code: int, **rest: Any) -> dict[str, Any]:
    return {"exit_code": int(code)} | rest


def training(*attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return make_status(*attempts, phase="Running", reason="Training", **fields)


def exporting(**fields: Any) -> dict[str, Any]:
    return make_status(make_attempt(reason="Completed"), phase="Exporting", reason="Exporting", **fields)


def ended(phase: str, **fields: Any) -> dict[str, Any]:
    return make_status(
        make_attempt(reason="Completed"), phase=phase, reason=phase, completedAt=timestamp(NOW), **fields
    )


def closed(reason: str, number: int = 1, **rest: Any) -> dict[str, Any]:
    return make_attempt(number, reason=reason, message=f"{reason} it was.", **rest)


def world_of(status: dict[str, Any] | None, *children: Manifest, **rest: Any) -> World:
    job_fields = {
        key: rest.pop(key) for key in ("spec", "deleting", "finalizers", "generation") if key in rest
    }
    return make_world(job(status, **job_fields), *children, **rest)


def lifecycle(**fields: Any) -> dict[str, Any]:
    return {"lifecycle": fields}


WORKERS = ("ConfigMap/support-bot-a1", "Job/support-bot-a1")
PREPARED = {"step": 40, "totalSteps": 100, "steps": "40/100", "attempt": 1, "lastCheckpointStep": 30}
PREPARED |= {"updatedTime": timestamp(NOW)}
