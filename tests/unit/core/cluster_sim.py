"""A small cluster of raw facts: a FineTuneJob, its Jobs and pods, nodes, and the controllers that move them.

It knows nothing of our phases: Jobs follow the Job controller's rules, pods the scheduler's and kubelet's.
Every change is kept as a snapshot, so that caches can be shown an older one.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Container
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.builders import (
    NOW,
    make_batch_job,
    make_export,
    make_facts,
    make_job,
    make_node,
    make_pod,
    make_result,
)
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright.core.outcome import timestamp
from tunewright_trainer.contract import ExitCode

_USER_CODES = {64, 65, 66, 77}
COMPONENTS = (names.COMPONENT_PREPARE, names.COMPONENT_TRAIN, names.COMPONENT_EXPORT)
RETRIES = {names.COMPONENT_PREPARE: 3, names.COMPONENT_EXPORT: 8}


@dataclass(frozen=True)
class SimPod:
    """A pod. Frozen: a change makes a new one, so that snapshots stay as they were."""

    name: str
    uid: str
    job: SimJob | None
    """As it was at creation; None for an orphan."""
    index: int
    node: str | None = None
    phase: str = "Pending"
    bound: datetime = NOW
    age: int = 0
    deleting: bool = False
    disruption: str | None = None
    waiting: tuple[str, str] | None = None
    unschedulable: str | None = None
    exit_code: int | None = None
    message: str = ""
    kubelet_reason: str | None = None

    @property
    def live(self) -> bool:
        return self.phase in ("Pending", "Running")

    @functools.cached_property
    def manifest(self) -> Manifest:
        return make_pod(
            self.job.manifest if self.job else None,
            self.index,
            phase=self.phase,
            node=self.node,
            exit_code=self.exit_code,
            answer=self.message,
            kubelet_reason=self.kubelet_reason,
            waiting=self.waiting,
            unschedulable=self.unschedulable,
            disruption=self.disruption,
            deleting=self.deleting,
            bound=self.bound,
            uid=self.uid,
        )


@dataclass(frozen=True)
class SimJob:
    """A batch Job, frozen like the pods."""

    name: str
    uid: str
    component: str
    attempt: int
    state: str = "Active"
    reason: str = "BackoffLimitExceeded"
    ended: datetime = NOW
    deleting: bool = False
    failing: bool = False
    made: int = 0
    """Pods made so far."""

    @functools.cached_property
    def manifest(self) -> Manifest:
        return make_batch_job(
            self.component,
            attempt=self.attempt,
            state=self.state,
            reason=self.reason,
            ended=self.ended,
            deleting=self.deleting,
            uid=self.uid,
        )


@dataclass
class Snapshots:
    """What a watch has told: each entry is the version and all objects as of it."""

    entries: list[tuple[int, Any]] = field(default_factory=list)

    def add(self, version: int, content: Any) -> None:
        if not self.entries or self.entries[-1][1] != content:
            self.entries.append((version, content))


class ClusterSim:
    """The truth. ``rng`` decides what is left open; :meth:`tick` lets all controllers act once."""

    def __init__(self, rng: random.Random, spec: dict[str, Any]) -> None:
        self.rng = rng
        self.now = NOW
        self.version = 100
        self._uids = 0
        self.job: Manifest | None = make_job(spec=spec, finalizers=())
        self.nodes_wanted: int = self.job["spec"]["compute"]["nodes"]
        self.jobs: dict[str, SimJob] = {}
        self.pods: dict[str, SimPod] = {}
        self.nodes = {name: make_node(name) for name in ("node-a", "node-b", "node-c")}
        self.config_maps: set[str] = set()
        self.services: set[str] = set()
        self.references = {
            "secret/hf-token": True,
            "configmap/faq": True,
            "persistentvolumeclaim/adapters": True,
        }
        self.sequences = 400
        self.hand_deleted = False
        """Somebody deleted one of our Jobs without waiting for its pods: the pods' peace is off."""
        self.snapshots = {kind: Snapshots() for kind in ("job", "jobs", "pods")}
        self.commit()

    # --- the API server -------------------------------------------------------------------------------------

    def commit(self) -> int:
        """Make changes visible to watches; returns the newest version."""
        self.version += 1
        self.snapshots["job"].add(self.version, self.job)
        self.snapshots["jobs"].add(self.version, dict(self.jobs))
        self.snapshots["pods"].add(self.version, dict(self.pods))
        return self.version

    def uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    def change_job(self, *, spec_changed: bool = False, **changes: Any) -> None:
        """Store the FineTuneJob with ``changes`` of its metadata, ``spec`` or ``status``."""
        assert self.job is not None
        metadata = {**self.job["metadata"], "resourceVersion": str(self.version + 1)}
        if spec_changed:
            metadata["generation"] += 1
        rest = {key: value for key, value in changes.items() if key in ("spec", "status")}
        metadata |= {key: value for key, value in changes.items() if key not in rest}
        self.job = {**self.job, **rest, "metadata": metadata}
        if "deletionTimestamp" in metadata and not metadata["finalizers"]:
            self.job = None
            self.jobs = {name: replace(job, deleting=True) for name, job in self.jobs.items()}
        self.commit()

    def delete_child_job(self, name: str, propagation: str) -> None:
        job = self.jobs[name]
        if propagation == "Foreground":
            self.jobs[name] = replace(job, deleting=True)
            return
        self.hand_deleted = True
        del self.jobs[name]
        for pod in self.pods_of(job):
            changed = replace(pod, deleting=True) if propagation == "Background" else replace(pod, job=None)
            self.pods[pod.name] = changed

    def pods_of(self, job: SimJob) -> list[SimPod]:
        return [pod for pod in self.pods.values() if pod.job is not None and pod.job.uid == job.uid]

    def node_is_well(self, name: str | None) -> bool:
        node = self.nodes.get(name or "")
        return node is not None and node["status"]["conditions"][0]["status"] == "True"

    # --- controllers ----------------------------------------------------------------------------------------

    def tick(self, finish: Container[str] = COMPONENTS) -> None:
        """One round of Job controller, garbage collection, scheduler and kubelets. Pods of the components
        in ``finish`` get their work done."""
        for job in list(self.jobs.values()):
            self._control(job)
        for pod in list(self.pods.values()):
            self._schedule_and_run(pod)
        self._finish_well(finish)
        self.commit()

    def _control(self, job: SimJob) -> None:
        pods = self.pods_of(job)
        if job.deleting:
            for pod in pods:
                self.pods[pod.name] = replace(pod, deleting=True)
            if not pods:
                del self.jobs[job.name]
            return
        if job.state != "Active":
            return
        if job.component == names.COMPONENT_TRAIN:
            self._control_gang(job, pods)
        else:
            self._control_single(job, pods)

    def _control_gang(self, job: SimJob, pods: list[SimPod]) -> None:
        live = [pod for pod in pods if pod.live]
        if any(pod.phase == "Failed" for pod in pods) or len(pods) < job.made:
            job = replace(job, failing=True)
        if job.failing and live:
            for pod in live:
                self.pods[pod.name] = replace(pod, deleting=True)
        elif job.failing:
            job = replace(job, state="Failed", ended=self.now)
        elif job.made < self.nodes_wanted:
            for index in range(job.made, self.nodes_wanted):
                self._add_pod(job, index)
            job = replace(job, made=self.nodes_wanted)
        elif all(pod.phase == "Succeeded" for pod in pods):
            job = replace(job, state="Complete", ended=self.now)
        self.jobs[job.name] = job

    def _control_single(self, job: SimJob, pods: list[SimPod]) -> None:
        failed = job.made - sum(pod.live or pod.phase == "Succeeded" for pod in pods)
        if any(pod.phase == "Succeeded" for pod in pods):
            job = replace(job, state="Complete", ended=self.now)
        elif any(pod.exit_code in _USER_CODES for pod in pods):
            job = replace(job, state="Failed", reason="PodFailurePolicy", ended=self.now)
        elif failed > RETRIES[job.component]:
            job = replace(job, state="Failed", ended=self.now)
        elif not any(pod.live for pod in pods):
            self._add_pod(job, job.made)
            job = replace(job, made=job.made + 1)
        self.jobs[job.name] = job

    def _add_pod(self, job: SimJob, index: int) -> None:
        name = f"{job.name}-{index}-{self.uid()}"
        self.pods[name] = SimPod(name, self.uid(), job, index, bound=self.now)

    def _schedule_and_run(self, pod: SimPod) -> None:
        if pod.node is None:
            well = [name for name in self.nodes if self.node_is_well(name)]
            if pod.deleting:
                del self.pods[pod.name]
            elif well:
                node = self.rng.choice(well)
                self.pods[pod.name] = replace(pod, node=node, bound=self.now, unschedulable=None)
            else:
                self.pods[pod.name] = replace(pod, unschedulable="0/3 nodes are available: 3 not ready.")
            return
        if pod.node not in self.nodes and pod.live:
            if self.rng.random() < 0.3:  # the garbage collector's quarantine is over
                del self.pods[pod.name]
            return
        if not self.node_is_well(pod.node) and pod.live:
            return
        if pod.deleting:
            self._stop(pod)
        elif pod.phase == "Pending" and pod.waiting is None:
            self.pods[pod.name] = replace(pod, phase="Running", age=0)
        elif pod.phase == "Running":
            self.pods[pod.name] = replace(pod, age=pod.age + 1)

    def _stop(self, pod: SimPod) -> None:
        if pod.phase == "Running" and self.rng.random() < 0.7:
            self.end(pod, ExitCode.TERMINATED)
        else:
            del self.pods[pod.name]

    def end(self, pod: SimPod, code: int, message: str = "", kubelet_reason: str | None = None) -> None:
        """The container of ``pod`` ends."""
        phase = "Succeeded" if code == 0 else "Failed"
        self.pods[pod.name] = replace(
            pod,
            phase=phase,
            exit_code=int(code),
            message=message,
            kubelet_reason=kubelet_reason,
            waiting=None,
        )

    def _finish_well(self, components: Container[str]) -> None:
        for job in self.jobs.values():
            if job.component not in components:
                continue
            for pod in self.pods_of(job):
                if pod.waiting is not None:
                    self.pods[pod.name] = replace(pod, waiting=None)
            pods = self.pods_of(job)
            due = [pod for pod in pods if pod.phase == "Running" and pod.age >= 1 and not pod.deleting]
            done = sum(pod.phase == "Succeeded" for pod in pods)
            if job.component == names.COMPONENT_TRAIN and len(due) + done < self.nodes_wanted:
                continue
            for pod in due:
                if self.node_is_well(pod.node):
                    self.end(pod, 0, self.good_answer(job, pod.index))

    def good_answer(self, job: SimJob, index: int) -> str:
        """What a pod of ``job`` says when it did what it was to do."""
        if job.component == names.COMPONENT_PREPARE:
            return make_facts(sequences=self.sequences).model_dump_json()
        if job.component == names.COMPONENT_EXPORT:
            return make_export().model_dump_json()
        return make_result(rank=index).model_dump_json()

    # --- what tests look at ---------------------------------------------------------------------------------

    def live_pods(self) -> list[SimPod]:
        return [pod for pod in self.pods.values() if pod.live]

    def is_over(self) -> bool:
        """The FineTuneJob is gone or has ended, and nothing of it runs or holds it back."""
        if self.job is None:
            return True
        status = self.job.get("status") or {}
        return (
            status.get("phase") in ("Succeeded", "Failed")
            and not self.live_pods()
            and names.FINALIZER not in self.job["metadata"]["finalizers"]
        )

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def set_node(self, name: str, ready: str) -> None:
        """``ready`` as in the Ready condition, or "gone"."""
        if ready == "gone":
            self.nodes.pop(name, None)
        else:
            self.nodes[name] = make_node(name, ready=ready, since=self.now)


def deletion_time(cluster: ClusterSim) -> str:
    return timestamp(cluster.now)
