"""What a stage of a job's life works on (Context) and what it answers with (Outcome)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tunewright.api.spec import FineTuneJobSpec
from tunewright.children.owner import Owner
from tunewright.core.lifecycle import Phase
from tunewright.core.model import Deletion, Manifest, World
from tunewright.core.observe import Observed, ObservedJob
from tunewright.core.settings import OperatorSettings

MESSAGE_CHARACTERS = 2048
"""Longest message in a status."""


@dataclass(frozen=True)
class Context:
    """Everything a stage may look at. ``status`` is the stored status plus what this pass has learned."""

    world: World
    observed: Observed
    owner: Owner
    parsed: FineTuneJobSpec | None
    """None when the spec is one that the models refuse; ``refusal`` then says why."""
    settings: OperatorSettings
    now: datetime
    status: Mapping[str, Any]
    refusal: str = ""

    @property
    def spec(self) -> FineTuneJobSpec:
        """The spec; only asked for once it is known to be one."""
        assert self.parsed is not None, self.refusal
        return self.parsed

    def learned(self, **fields: Any) -> Context:
        """The same context with status fields replaced."""
        return replace(self, status={**self.status, **fields})

    @property
    def stored_status(self) -> Mapping[str, Any]:
        """Status as the API server has it. What is not in here may be lost with the operator."""
        return self.world.job.get("status") or {}


@dataclass(frozen=True)
class Outcome:
    """Where the job is, why, and what has to happen. ``message`` is the why-line for people."""

    phase: Phase
    reason: str
    message: str
    status: Mapping[str, Any]
    """Status fields, stored ones included; conditions, phase and message are added by core.status."""
    create: tuple[Manifest, ...] = ()
    delete: tuple[Deletion, ...] = ()
    requeue_after_seconds: float | None = None
    warning: bool = False
    """Whether the event about it is a Warning."""
    confirm_over: tuple[str, ...] | None = None
    """As in :class:`tunewright.core.model.Plan`."""
    notes: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """Condition type to (status, reason, message), for conditions that say more than the phase does."""


def outcome(context: Context, phase: Phase, reason: str, message: str, **rest: Any) -> Outcome:
    """An Outcome that carries on with the context's status."""
    return Outcome(phase=phase, reason=reason, message=message, status=context.status, **rest)


def timestamp(moment: datetime) -> str:
    """``moment`` as Kubernetes writes times: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(moment: datetime) -> str:
    """Hours and minutes for messages: absolute, so that a waiting job is not rewritten."""
    return moment.astimezone(UTC).strftime("%H:%M:%S UTC")


def delete_job(namespace: str, job: ObservedJob) -> tuple[Deletion, ...]:
    """Deletes a Job; its pods go first, with their own grace period.

    So a Job that is gone has no pod left, which is what a successor waits for.
    """
    if job.deleting:
        return ()
    return (Deletion("jobs", namespace, job.name, job.uid, propagation="Foreground"),)


def release_stuck_pods(context: Context) -> tuple[Deletion, ...]:
    """Deletions of pods that nobody else will ever remove: on nodes that are gone, or of no Job at all."""
    orphans = [pod for pod in context.observed.leftover_pods if not pod.owner_uid and not pod.deleting]
    lost = force_lost_pods(context)
    forced = {deletion.uid for deletion in lost}
    return lost + tuple(
        Deletion("pods", context.owner.namespace, pod.name, pod.uid)
        for pod in orphans
        if pod.uid not in forced
    )


def force_lost_pods(context: Context) -> tuple[Deletion, ...]:
    """Removes pods of nodes that are gone: no kubelet is left to confirm their end."""
    pods = [pod for job in all_jobs(context.observed) for pod in job.pods] + list(
        context.observed.leftover_pods
    )
    return tuple(
        Deletion("pods", context.owner.namespace, pod.name, pod.uid, grace_seconds=0)
        for pod in pods
        if pod.node in context.observed.lost_nodes and not pod.terminal
    )


def all_jobs(observed: Observed) -> list[ObservedJob]:
    """Every Job of this FineTuneJob."""
    jobs = [observed.prepare, *observed.workers.values(), observed.export]
    return [job for job in jobs if job is not None]


def live_pods(observed: Observed) -> int:
    """Pods that may still run a process."""
    owned = sum(not pod.terminal for job in all_jobs(observed) for pod in job.pods)
    return owned + len(observed.leftover_pods)


def still_runs(observed: Observed) -> bool:
    """Whether a process may still run, or a Job could still start one."""
    return live_pods(observed) > 0 or any(job.state == "Active" for job in all_jobs(observed))


def missing_children(context: Context, *manifests: Manifest) -> tuple[Manifest, ...]:
    """Those of ``manifests`` (Services, ConfigMaps) that aren't there: somebody may have deleted them."""
    there = {"Service": context.world.services, "ConfigMap": context.world.config_maps}
    return tuple(
        manifest for manifest in manifests if manifest["metadata"]["name"] not in there[manifest["kind"]]
    )
