"""An operator over the simulated cluster: lagging caches, the writer's rules, death between two writes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.builders import NAME, make_report
from tests.unit.core.cluster_sim import ClusterSim, SimJob, deletion_time
from tunewright.core import names
from tunewright.core.model import Deletion, Manifest, Plan, ProgressReport, World
from tunewright.core.plan import plan
from tunewright.core.settings import OperatorSettings

Check = Callable[[Manifest, Manifest | None], None]
"""Called with the FineTuneJob before and after a write of its status."""


class ConflictError(Exception):
    """The API server, or a live read, says that the plan was made for an older state."""


class OperatorSim:
    """Executes plans as cluster.apply does. ``lag`` tells how many snapshots a cache may be behind."""

    def __init__(
        self, cluster: ClusterSim, rng: random.Random, settings: OperatorSettings, on_status: Check
    ) -> None:
        self.cluster = cluster
        self.rng = rng
        self.settings = settings
        self.on_status = on_status
        self.writes = 0
        self._seen_at = dict.fromkeys(cluster.snapshots, 0)
        self._overlay: dict[str, dict[str, tuple[int, Any]]] = {}
        self.start(lag=0)

    # --- caches ---------------------------------------------------------------------------------------------

    def start(self, *, lag: int) -> None:
        """A fresh process, or a standby that takes over with caches ``lag`` snapshots behind."""
        self.report: ProgressReport | None = None
        self.points: list[tuple[int, float | None, float | None]] = []
        self.written_at: Any = None
        self._overlay = {kind: {} for kind in self.cluster.snapshots}
        self._stuck = {kind for kind in self.cluster.snapshots if lag and self.rng.random() < 0.3}
        for kind, snapshots in self.cluster.snapshots.items():
            newest = len(snapshots.entries) - 1
            self._seen_at[kind] = max(0, newest - (self.rng.randint(0, lag) if lag else 0))

    def watch(self, *, lag: int) -> None:
        """Caches move on, never back; each kind by itself. A stuck watch brings nothing for a while."""
        if self.rng.random() < 0.2:
            self._stuck.clear()
        for kind, snapshots in self.cluster.snapshots.items():
            if kind in self._stuck:
                continue
            newest = len(snapshots.entries) - 1
            behind = self.rng.randint(0, lag) if lag else 0
            self._seen_at[kind] = max(self._seen_at[kind], newest - behind)

    def catch_up(self) -> None:
        """All watches bring what there is."""
        self._stuck.clear()
        self.watch(lag=0)

    def _view(self, kind: str) -> Any:
        version, content = self.cluster.snapshots[kind].entries[self._seen_at[kind]]
        newer = {name: obj for name, (written, obj) in self._overlay[kind].items() if written > version}
        if kind == "job":
            return newer.get(NAME, content) if newer else content
        return {name: obj for name, obj in {**content, **newer}.items() if obj is not None}

    def _note(self, kind: str, name: str, obj: Any) -> None:
        """Own writes are in the cache as soon as they are answered; None: gone."""
        self._overlay[kind][name] = (self.cluster.version, obj)

    def world(self) -> World | None:
        job = self._view("job")
        if job is None:
            return None
        cluster = self.cluster
        return World(
            job=job,
            jobs=tuple(child.manifest for child in self._view("jobs").values()),
            pods=tuple(pod.manifest for pod in self._view("pods").values()),
            config_maps=tuple(cluster.config_maps),
            services=tuple(cluster.services),
            nodes=dict(cluster.nodes),
            references=dict(cluster.references),
            progress=self.report,
            history=tuple(self.points),
            seconds_since_status_write=None
            if self.written_at is None
            else max(0.0, (cluster.now - self.written_at).total_seconds()),
        )

    # --- passes ---------------------------------------------------------------------------------------------

    def reconcile(self, *, die_after: int | None = None) -> Plan | None:
        """One pass; with ``die_after`` only so many writes of it happen. None when there is no job."""
        world = self.world()
        if world is None:
            return None
        decided = plan(world, self.settings, self.cluster.now)
        try:
            for done, _ in enumerate(self._execute(world.job, decided)):
                self.writes += 1
                self.cluster.commit()
                if done == die_after:
                    self.start(lag=0)
                    break
        except ConflictError:
            self.writes += 1  # another pass follows
        return decided

    def _execute(self, job: Manifest, decided: Plan) -> Iterator[None]:
        """The writes of a plan, one by one, in cluster.apply's order."""
        if decided.confirm_over is not None:
            self._confirm(job, decided.confirm_over)
        if decided.add_finalizer:
            job = self._change_job(job, finalizers=[*job["metadata"]["finalizers"], names.FINALIZER])
            yield
        for child in decided.create:
            if self._create(child):
                yield
        for deletion in decided.delete:
            self._delete(deletion)
            yield
        if decided.status is not None:
            before = job
            # As the API server stores it: JSON, no NaN.
            job = self._change_job(job, status=json.loads(json.dumps(decided.status, allow_nan=False)))
            self.written_at = self.cluster.now
            self.on_status(before, self.cluster.job)
            yield
        if decided.remove_finalizer:
            kept = [name for name in job["metadata"]["finalizers"] if name != names.FINALIZER]
            self._change_job(job, finalizers=kept)
            yield
        if decided.delete_self and self.cluster.job is not None:
            self.cluster.change_job(deletionTimestamp=deletion_time(self.cluster))
            yield

    def _confirm(self, job: Manifest, over: tuple[str, ...]) -> None:
        live = self.cluster.job
        self._note("job", NAME, live)
        if live is None or live["metadata"]["resourceVersion"] != job["metadata"]["resourceVersion"]:
            raise ConflictError("the job has changed")
        for name in over:
            child = self.cluster.jobs.get(name)
            self._note("jobs", name, child)
            if child is not None and child.state == "Active":
                raise ConflictError(f"{name} runs")

    def _change_job(self, job: Manifest, **changes: Any) -> Manifest:
        live = self.cluster.job
        if live is None or live["metadata"]["resourceVersion"] != job["metadata"]["resourceVersion"]:
            raise ConflictError("the job has changed")
        self.cluster.change_job(**changes)
        self._note("job", NAME, self.cluster.job)
        return self.cluster.job or job

    def _create(self, child: Manifest) -> bool:
        name, labels = child["metadata"]["name"], child["metadata"]["labels"]
        cluster = self.cluster
        if child["kind"] != "Job":
            kept = cluster.services if child["kind"] == "Service" else cluster.config_maps
            is_new = name not in kept
            kept.add(name)
            return is_new
        if (there := cluster.jobs.get(name)) is not None:
            if there.deleting:
                raise ConflictError(f"{name} is still being deleted")
            self._note("jobs", name, there)
            return False
        component = labels[names.LABEL_COMPONENT]
        if component == names.COMPONENT_TRAIN:
            assert_may_train(cluster)
        made = SimJob(name, cluster.uid(), component, int(labels.get(names.LABEL_ATTEMPT, "0")))
        cluster.jobs[name] = made
        cluster.commit()
        self._note("jobs", name, made)
        return True

    def _delete(self, deletion: Deletion) -> None:
        cluster = self.cluster
        if deletion.resource == "pods":
            pod = next((pod for pod in cluster.pods.values() if pod.uid == deletion.uid), None)
            if pod is not None and deletion.grace_seconds == 0:
                del cluster.pods[pod.name]
            elif pod is not None:
                cluster.pods[pod.name] = replace(pod, deleting=True)
            return
        job = cluster.jobs.get(deletion.name)
        if job is None or job.uid != deletion.uid:
            self._note("jobs", deletion.name, job)
            return
        assert deletion.propagation == "Foreground"
        cluster.delete_child_job(deletion.name, deletion.propagation)
        cluster.commit()
        self._note("jobs", deletion.name, cluster.jobs[deletion.name])

    # --- progress -------------------------------------------------------------------------------------------

    def post(self, pod_uid: str, step: int, loss: float) -> None:
        """Rank 0 reports."""
        now = self.cluster.now
        news = self.report is None or self.report.values.get("step") != step or self.report.pod_uid != pod_uid
        advanced = now if news or self.report is None else None
        report = make_report(pod_uid, step, received=now, loss=loss, last_checkpoint_step=step // 10 * 10)
        if advanced is None and self.report is not None:
            report = replace(report, advanced_at=self.report.advanced_at)
        self.report = report
        while self.points and self.points[-1][0] >= step:
            self.points.pop()
        self.points.append((step, loss, None))


def assert_may_train(cluster: ClusterSim) -> None:
    """What has to be true in the API server at the moment in which a worker Job is made."""
    job = cluster.job
    assert job is not None, "a worker Job for a job that is gone"
    status = job.get("status") or {}
    assert {"plan", "data"} <= status.keys(), "a worker Job before facts and plan were stored"
    assert status["phase"] not in ("Succeeded", "Failed"), "a worker Job after the end"
    assert "deletionTimestamp" not in job["metadata"], "a worker Job for a job that is being deleted"
    assert names.FINALIZER in job["metadata"]["finalizers"], "a worker Job before the finalizer"
    running = [
        child.name
        for child in cluster.jobs.values()
        if child.component == names.COMPONENT_TRAIN and child.state == "Active"
    ]
    assert not running, f"a second worker Job beside {running}"
