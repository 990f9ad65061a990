"""Values that flow through a reconcile: what was observed, what is to be done. Frozen, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Manifest = dict[str, Any]
"""A Kubernetes object as a plain dict."""


@dataclass(frozen=True)
class Deletion:
    """An object to delete, guarded by its uid so that a successor of the same name is never hit."""

    resource: str
    """Plural, as in cluster.resources: ``jobs`` or ``pods``. Others need a right in the chart."""
    namespace: str
    name: str
    uid: str
    grace_seconds: int | None = None
    """None: the object's own grace period; 0: forced, for pods of a node that is gone."""
    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"
    """Foreground: the object stays, marked as deleted, until all that it owns is gone."""


@dataclass(frozen=True)
class Event:
    """A Kubernetes event on the FineTuneJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str = "Reconcile"


@dataclass(frozen=True)
class Plan:
    """Everything one reconcile decided. Executed in this order by cluster.apply."""

    confirm_over: tuple[str, ...] | None = None
    """Given: before anything is written, live reads have to show that the FineTuneJob is still as this plan
    saw it, and that the batch Jobs of these names are gone or over. Caches may lag; two gangs of one job
    may never run, and none is stopped because of what a job said a while ago."""
    add_finalizer: bool = False
    create: tuple[Manifest, ...] = ()
    """Children to create; 409 is success if the owner uid is ours."""
    delete: tuple[Deletion, ...] = ()
    status: Mapping[str, Any] | None = None
    """Whole new status; None when it has not changed."""
    remove_finalizer: bool = False
    delete_self: bool = False
    """The job itself is to be deleted (ttlSecondsAfterFinished)."""
    events: tuple[Event, ...] = ()
    requeue_after_seconds: float | None = None


@dataclass(frozen=True)
class ProgressReport:
    """The newest accepted progress post of a job's current attempt, kept in the operator's memory."""

    received_at: str
    """RFC 3339, whole seconds."""
    advanced_at: str
    """When a post first told of the newest step: a hung gang may go on posting."""
    pod_uid: str
    percent: int | None = None
    remaining_seconds: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Fields of contract.TunewrightProgress that were given."""


@dataclass(frozen=True)
class World:
    """Raw facts for one job, as read from caches and single GETs. Input of core.observe."""

    job: Manifest
    """The FineTuneJob as stored."""
    jobs: tuple[Manifest, ...] = ()
    """batch/v1 Jobs that this FineTuneJob owns (by owner uid)."""
    pods: tuple[Manifest, ...] = ()
    """Pods with this job's uid label."""
    config_maps: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    nodes: Mapping[str, Manifest] = field(default_factory=dict)
    """All nodes by name, stripped to what is read."""
    references: Mapping[str, bool] = field(default_factory=dict)
    """``secret/<name>``, ``persistentvolumeclaim/<name>``, ``configmap/<name>``: does it exist?"""
    progress: ProgressReport | None = None
    history: tuple[tuple[int, float | None, float | None], ...] = ()
    """(step, loss, eval loss) points of the current attempt's newest posts, in order."""
    seconds_since_status_write: float | None = None
    """Age of this operator's newest write of the job's status; None when it wrote none yet."""
