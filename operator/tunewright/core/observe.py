"""Turns raw Jobs, Pods and Nodes into the few facts that decisions need. Pure; odd input never raises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from tunewright.core import names
from tunewright.core.model import Manifest, World
from tunewright_trainer.contract import ANSWER, ExportResult, Facts, Failure, TrainResult


@dataclass(frozen=True)
class ContainerEnd:
    """How the trainer container of a pod ended."""

    exit_code: int
    kubelet_reason: str
    """``Completed``, ``Error``, ``OOMKilled`` …"""
    answer: Facts | TrainResult | ExportResult | Failure | None
    """The termination message if it was one of the contract's documents."""
    text: str
    """The termination message otherwise, cut to 512 characters."""


@dataclass(frozen=True)
class ObservedPod:
    name: str
    uid: str
    owner_uid: str
    node: str | None
    phase: str
    ready: bool
    deleting: bool
    disruption: str | None
    """Message of a DisruptionTarget condition, if there is one."""
    unschedulable: str | None
    """The scheduler's own words, if it can't place the pod."""
    waiting_reason: str | None
    waiting_message: str
    end: ContainerEnd | None

    @property
    def terminal(self) -> bool:
        """No process of this pod runs any more, as far as its kubelet said."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class ObservedJob:
    name: str
    uid: str
    component: str
    attempt: int
    """0 for prepare and export."""
    state: Literal["Active", "Complete", "Failed"]
    reason: str
    message: str
    ended_at: datetime | None
    """When it became Complete or Failed."""
    deleting: bool
    pods: tuple[ObservedPod, ...]


@dataclass(frozen=True)
class Observed:
    """One job's children, sorted into named places."""

    prepare: ObservedJob | None
    export: ObservedJob | None
    workers: Mapping[int, ObservedJob]
    """Worker Jobs by attempt."""
    leftover_pods: tuple[ObservedPod, ...]
    """Pods that still run though their Job is gone."""
    lost_nodes: frozenset[str]
    """Nodes that pods are bound to and that are gone or NotReady for long."""
    next_node_loss_seconds: float | None = None
    """When a node that is not well now will count as lost, if it stays so."""


def observe(world: World, now: datetime, node_lost_seconds: float) -> Observed:
    """Sort ``world`` into :class:`Observed`. ``now`` is only used for how long a node has been gone."""
    pods = [_pod(raw) for raw in world.pods]
    job_uids = {raw["metadata"]["uid"] for raw in world.jobs}
    jobs = [_job(raw, pods) for raw in world.jobs]
    doomed = [
        (pod, node_lost_seconds - (now - since).total_seconds())
        for pod, raw in zip(pods, world.pods, strict=True)
        if pod.node and (since := _unwell_since(raw, world.nodes.get(pod.node), now)) is not None
    ]
    return Observed(
        prepare=_first(job for job in jobs if job.component == names.COMPONENT_PREPARE),
        export=_first(job for job in jobs if job.component == names.COMPONENT_EXPORT),
        workers={job.attempt: job for job in jobs if job.component == names.COMPONENT_TRAIN},
        leftover_pods=tuple(pod for pod in pods if pod.owner_uid not in job_uids and not pod.terminal),
        lost_nodes=frozenset(pod.node for pod, left in doomed if pod.node and left <= 0),
        next_node_loss_seconds=min(
            (left for pod, left in doomed if left > 0 and not pod.terminal), default=None
        ),
    )


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 as Kubernetes writes it, or None. Always with a zone: UTC where none is given."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _first(jobs: Iterable[ObservedJob]) -> ObservedJob | None:
    return next(iter(jobs), None)


def _condition(raw: Manifest, kind: str) -> Mapping[str, Any] | None:
    for condition in raw.get("status", {}).get("conditions") or ():
        if condition.get("type") == kind:
            return condition  # type: ignore[no-any-return]
    return None


def _is_true(condition: Mapping[str, Any] | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _job(raw: Manifest, pods: list[ObservedPod]) -> ObservedJob:
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    failed, complete = _condition(raw, "Failed"), _condition(raw, "Complete")
    # FailureTarget and SuccessCriteriaMet come before the final conditions, while pods are still ending:
    # only the final ones say that every pod has stopped.
    state: Literal["Active", "Complete", "Failed"] = "Active"
    if _is_true(failed):
        state = "Failed"
    elif _is_true(complete):
        state = "Complete"
    shown = {"Failed": failed, "Complete": complete, "Active": None}[state]
    attempt = labels.get(names.LABEL_ATTEMPT, "0")
    return ObservedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        component=labels.get(names.LABEL_COMPONENT, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        state=state,
        reason=(shown or {}).get("reason", ""),
        message=(shown or {}).get("message", ""),
        ended_at=parse_time((shown or {}).get("lastTransitionTime")),
        deleting="deletionTimestamp" in metadata,
        pods=tuple(
            sorted((pod for pod in pods if pod.owner_uid == metadata["uid"]), key=lambda pod: pod.name)
        ),
    )


def _pod(raw: Manifest) -> ObservedPod:
    metadata, status = raw["metadata"], raw.get("status") or {}
    owner: Mapping[str, Any] = next(
        (o for o in metadata.get("ownerReferences") or () if o.get("controller")), {}
    )
    disruption = _condition(raw, "DisruptionTarget")
    scheduled = _condition(raw, "PodScheduled")
    unschedulable = scheduled is not None and scheduled.get("reason") == "Unschedulable"
    waiting = _waiting(status)
    return ObservedPod(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owner.get("uid", ""),
        node=(raw.get("spec") or {}).get("nodeName"),
        phase=status.get("phase", "Pending"),
        ready=_is_true(_condition(raw, "Ready")),
        deleting="deletionTimestamp" in metadata,
        disruption=(disruption or {}).get("message", "") if _is_true(disruption) else None,
        unschedulable=(scheduled or {}).get("message", "") if unschedulable else None,
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        end=_end(status),
    )


def _trainer_state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.CONTAINER:
            return container.get("state") or {}
    return {}


def _waiting(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return _trainer_state(status).get("waiting") or {}


def _end(status: Mapping[str, Any]) -> ContainerEnd | None:
    ended = _trainer_state(status).get("terminated")
    if not ended:
        return None
    message = ended.get("message") or ""
    try:
        answer = ANSWER.validate_json(message)
    except ValidationError:
        answer = None
    return ContainerEnd(
        exit_code=int(ended.get("exitCode", 1)),
        kubelet_reason=ended.get("reason", ""),
        answer=answer,
        text="" if answer else message.strip()[-512:],
    )


def _unwell_since(pod: Manifest, node: Manifest | None, now: datetime) -> datetime | None:
    """Since when the node of ``pod`` has been NotReady or unknown; None while it is well.

    A node that isn't known may be too new for the cache of nodes: it is given time from when it got the pod.
    """
    if node is None:
        scheduled = _condition(pod, "PodScheduled") or {}
        bound = scheduled.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
        return parse_time(bound) or now
    ready = _condition(node, "Ready")
    if ready is None or ready.get("status") == "True":
        return None
    return parse_time(ready.get("lastTransitionTime")) or now
