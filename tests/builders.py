"""Builders of raw cluster objects with sane defaults: a test names only what it is about."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from tests.answers import (
    NOW,
    make_data_facts,
    make_export,
    make_facts,
    make_failure,
    make_model_facts,
    make_report,
    make_result,
)
from tunewright.core import names
from tunewright.core.model import Manifest, World
from tunewright.core.outcome import timestamp
from tunewright.core.settings import OperatorSettings

__all__ = [
    "JOB_UID",
    "NAME",
    "NAMESPACE",
    "NOW",
    "SETTINGS",
    "at",
    "make_attempt",
    "make_batch_job",
    "make_data_facts",
    "make_export",
    "make_facts",
    "make_failure",
    "make_job",
    "make_model_facts",
    "make_node",
    "make_pod",
    "make_report",
    "make_result",
    "make_spec",
    "make_status",
    "make_world",
    "merged",
    "termination",
]

NAMESPACE = "team-a"
NAME = "support-bot"
JOB_UID = "11111111-2222-3333-4444-555555555555"
SETTINGS = OperatorSettings(
    trainer_image="tunewright/trainer:0.1.0",
    progress_url="https://tunewright.tunewright-system.svc:8443",
    progress_ca_pem="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
)


def at(seconds: float) -> datetime:
    """``seconds`` after :data:`NOW`."""
    return NOW + timedelta(seconds=seconds)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of ``base`` with ``changes`` laid over it, maps into maps; None removes a key."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def make_spec(**changes: Any) -> dict[str, Any]:
    """The spec of a two-node CPU job, as the API server stores it; ``changes`` are merged in."""
    spec = {
        "model": {"source": "hf://org/tiny", "secretRef": {"name": "hf-token"}},
        "dataset": {"train": [{"configMapRef": {"name": "faq", "key": "train.jsonl"}}]},
        "training": {"maxSteps": 100, "batch": {"global": 4}},
        "compute": {"nodes": 2, "gpusPerNode": 0, "processesPerNode": 1},
        "output": {"destination": "pvc://adapters/support-bot"},
    }
    return merged(spec, changes)


def make_job(
    *,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    name: str = NAME,
    uid: str = JOB_UID,
    generation: int = 1,
    finalizers: tuple[str, ...] = (names.FINALIZER,),
    deleting: bool = False,
) -> Manifest:
    """A FineTuneJob. ``spec`` is merged into :func:`make_spec`'s."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid,
        "generation": generation,
        "resourceVersion": "100",
        "creationTimestamp": timestamp(NOW),
        "finalizers": list(finalizers),
    }
    if deleting:
        metadata["deletionTimestamp"] = timestamp(NOW)
    job: Manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": metadata,
        "spec": make_spec(**(spec or {})),
    }
    if status is not None:
        job["status"] = copy.deepcopy(dict(status))
    return job


def _condition(kind: str, status: str, reason: str, message: str, when: datetime) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(when),
    }


def make_batch_job(
    component: str = names.COMPONENT_TRAIN,
    *,
    attempt: int = 1,
    state: str = "Active",
    reason: str = "BackoffLimitExceeded",
    ended: datetime = NOW - timedelta(minutes=5),
    deleting: bool = False,
    name: str = NAME,
    job_uid: str = JOB_UID,
    uid: str | None = None,
) -> Manifest:
    """A batch Job of a FineTuneJob. ``state`` is Active, Complete or Failed (with ``reason``)."""
    own_name = {
        names.COMPONENT_PREPARE: names.prepare_job(name),
        names.COMPONENT_EXPORT: names.export_job(name),
        names.COMPONENT_TRAIN: names.worker_job(name, attempt),
    }[component]
    labels = {names.LABEL_JOB_UID: job_uid, names.LABEL_COMPONENT: component}
    if component == names.COMPONENT_TRAIN:
        labels[names.LABEL_ATTEMPT] = str(attempt)
    conditions = []
    if state == "Complete":
        conditions = [_condition("Complete", "True", "CompletionsReached", "", ended)]
    elif state == "Failed":
        conditions = [_condition("Failed", "True", reason, "Job has failed.", ended)]
    metadata: dict[str, Any] = {
        "name": own_name,
        "namespace": NAMESPACE,
        "uid": uid or f"uid-{own_name}",
        "labels": labels,
        "ownerReferences": [{"kind": names.KIND, "name": name, "uid": job_uid, "controller": True}],
    }
    if deleting:
        metadata["deletionTimestamp"] = timestamp(NOW)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "status": {"conditions": conditions} if conditions else {},
    }


def termination(answer: BaseModel | str | None) -> str:
    """A termination message: one of the contract's answers as JSON, or plain text."""
    return answer.model_dump_json() if isinstance(answer, BaseModel) else answer or ""


def _container_state(
    phase: str,
    exit_code: int | None,
    answer: BaseModel | str | None,
    kubelet_reason: str | None,
    waiting: tuple[str, str] | None,
) -> dict[str, Any]:
    if exit_code is not None:
        said = kubelet_reason or ("Completed" if exit_code == 0 else "Error")
        return {"terminated": {"exitCode": exit_code, "reason": said, "message": termination(answer)}}
    if waiting is not None:
        return {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    return {"running": {}} if phase == "Running" else {}


def _pod_conditions(
    node: str | None, ready: bool, unschedulable: str | None, disruption: str | None, bound: datetime
) -> list[dict[str, Any]]:
    conditions = [_condition("Ready", str(ready), "Kubelet", "", NOW)]
    if unschedulable is not None:
        conditions.append(_condition("PodScheduled", "False", "Unschedulable", unschedulable, bound))
    elif node is not None:
        conditions.append(_condition("PodScheduled", "True", "Scheduled", "", bound))
    if disruption is not None:
        conditions.append(_condition("DisruptionTarget", "True", "EvictionByEvictionAPI", disruption, NOW))
    return conditions


def make_pod(
    owner: Manifest | None,
    index: int = 0,
    *,
    phase: str = "Running",
    node: str | None = "node-a",
    ready: bool = True,
    exit_code: int | None = None,
    answer: BaseModel | str | None = None,
    kubelet_reason: str | None = None,
    waiting: tuple[str, str] | None = None,
    unschedulable: str | None = None,
    disruption: str | None = None,
    deleting: bool = False,
    bound: datetime = NOW - timedelta(hours=1),
    uid: str | None = None,
) -> Manifest:
    """A pod of the batch Job ``owner`` (None: an orphan). An ``exit_code`` makes it Succeeded or Failed."""
    if exit_code is not None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
    name = f"{owner['metadata']['name'] if owner else 'orphan'}-{index}-abcde"
    state = _container_state(phase, exit_code, answer, kubelet_reason, waiting)
    if unschedulable is not None:
        node, phase = None, "Pending"
    is_ready = ready and phase == "Running"
    conditions = _pod_conditions(node, is_ready, unschedulable, disruption, bound)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid or f"uid-{name}",
        "creationTimestamp": timestamp(bound),
        "labels": dict(owner["metadata"]["labels"]) if owner else {names.LABEL_JOB_UID: JOB_UID},
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "kind": "Job",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
    if deleting:
        metadata["deletionTimestamp"] = timestamp(NOW)
    status: dict[str, Any] = {"phase": "Pending" if waiting else phase, "conditions": conditions}
    if state:
        status["containerStatuses"] = [{"name": names.CONTAINER, "state": state}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


def make_node(
    name: str = "node-a",
    *,
    ready: str = "True",
    since: datetime = NOW - timedelta(hours=1),
    labels: Mapping[str, str] | None = None,
    allocatable: Mapping[str, str] | None = None,
) -> Manifest:
    """A Node whose Ready condition is ``ready`` (True, False, Unknown) ``since`` then."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "status": {
            "conditions": [_condition("Ready", ready, "Kubelet", "", since)],
            "allocatable": dict(allocatable or {}),
        },
    }


def make_world(
    job: Manifest | None = None,
    *children: Manifest,
    nodes: tuple[Manifest, ...] | None = None,
    config_maps: tuple[str, ...] | None = None,
    services: tuple[str, ...] | None = None,
    **fields: Any,
) -> World:
    """A World of ``job`` and ``children`` (Jobs and Pods in any order); Services and ConfigMaps are there."""
    job = job or make_job()
    name = job["metadata"]["name"]
    if config_maps is None:
        config_maps = (names.prepare_config(name), *(names.train_config(name, n) for n in range(1, 30)))
    nodes = (make_node("node-a"), make_node("node-b")) if nodes is None else nodes
    return World(
        job=job,
        jobs=tuple(child for child in children if child["kind"] == "Job"),
        pods=tuple(child for child in children if child["kind"] == "Pod"),
        nodes={node["metadata"]["name"]: node for node in nodes},
        config_maps=config_maps,
        services=(names.worker_service(name),) if services is None else services,
        **fields,
    )


# --- Statuses as an operator would have stored them ---------------------------------------------------------


@functools.cache
def _prepared() -> dict[str, Any]:
    from tunewright.core.plan import plan

    prepare = make_batch_job(names.COMPONENT_PREPARE, state="Complete")
    pod = make_pod(prepare, exit_code=0, answer=make_facts())
    decided = plan(make_world(make_job(), prepare, pod), SETTINGS, NOW)
    assert decided.status is not None
    return dict(decided.status)


def make_status(
    *attempts: Mapping[str, Any], phase: str = "Starting", reason: str = "Starting", **fields: Any
) -> dict[str, Any]:
    """The status of a job whose facts and plan are known, in ``phase``, with these ``attempts``.

    Without attempts one is open since :data:`NOW`. ``fields`` are laid over the rest.
    """
    status = copy.deepcopy(_prepared())
    if attempts:
        status["attempts"] = [dict(attempt) for attempt in attempts]
    for condition in status["conditions"]:
        if condition["type"] == "Running":
            running = phase == "Running"
            condition["status"], condition["reason"] = str(running), reason if running else phase
        if condition["type"] == "Ready":
            condition["reason"] = reason
    status["phase"] = phase
    return merged(status, fields)


def make_attempt(number: int = 1, *, started: datetime = NOW, **end: Any) -> dict[str, Any]:
    """An entry of status.attempts: open unless ``reason`` is given."""
    attempt = {"number": number, "startedAt": timestamp(started), **end}
    if "reason" in end:
        attempt.setdefault("endedAt", timestamp(NOW))
    return attempt
