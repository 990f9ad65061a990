"""What a reconcile sees and does: the caches, a few single reads, and the one writer behind one door."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from tunewright.api.spec import parse_spec
from tunewright.cluster.apply import Applier
from tunewright.cluster.caches import Caches
from tunewright.cluster.children import by_label, is_pod_of, job_key
from tunewright.cluster.client import Client
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.reference_check import ReferenceCheck
from tunewright.cluster.resources import PODS
from tunewright.core import names
from tunewright.core.model import Manifest, Plan, World
from tunewright.core.progress import ProgressBook
from tunewright.core.references import references

T = TypeVar("T")
MOST_REMEMBERED = 10_000


class ClusterView:
    """Implements the ``Cluster`` protocol of core.reconcile over :class:`Caches` and :class:`Client`."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        recorder: EventRecorder,
        progress: ProgressBook,
        *,
        check_secrets: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._caches = caches
        self._progress = progress
        self._clock = clock
        self._references = ReferenceCheck(client, check_secrets=check_secrets, clock=clock)
        self._client = client
        self._pods_read: OrderedDict[str, bool] = OrderedDict()
        self._status_written: OrderedDict[str, float] = OrderedDict()
        self._applier = Applier(
            client,
            recorder,
            seen=caches.seen,
            gone=caches.gone,
        )

    def job(self, namespace: str, name: str) -> Manifest | None:
        """The FineTuneJob from the cache, which holds our own writes as soon as they are answered."""
        return self._caches.jobs.store.get(namespace, name)

    async def world(self, job: Manifest) -> World:
        """Everything known about ``job``. Raises ApiError if references can't be looked up."""
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        caches = self._caches
        key = job_key(namespace, uid)
        child_jobs = caches.child_jobs.store.by_index("job", key)
        return World(
            job=job,
            jobs=tuple(child_jobs),
            pods=tuple(await self._pods(job, child_jobs)),
            config_maps=tuple(_names(caches.config_maps.store.by_index("job", key))),
            services=tuple(_names(caches.services.store.by_index("job", key))),
            nodes={node["metadata"]["name"]: node for node in caches.nodes.store},
            references=await self._references.check(namespace, _awaited(job, child_jobs)),
            progress=self._progress.report(uid),
            history=self._progress.points(uid),
            seconds_since_status_write=self._seconds_since_status_write(uid),
        )

    async def execute(self, job: Manifest, plan: Plan) -> None:
        """Carry out ``plan``. Raises ApiError."""
        await self._applier.execute(job, plan)
        if plan.status is not None:
            _remember(self._status_written, job["metadata"]["uid"], self._clock())

    def is_current_worker(self, namespace: str, name: str, pod_uid: str) -> bool:
        """Is this a pod of the newest attempt of the job ``name`` that has not ended? Only such a pod may
        report progress: a token outlives its pod."""
        job = self.job(namespace, name)
        pod = next(iter(self._caches.pods.store.by_index("uid", pod_uid)), None)
        if job is None or pod is None:
            return False
        key = job_key(namespace, job["metadata"]["uid"])
        workers = self._caches.child_jobs.store.by_index("job", key)
        if key not in by_label(pod) or not is_pod_of(pod, name, _uids(workers)):
            return False
        labels = pod["metadata"]["labels"]
        if labels.get(names.LABEL_COMPONENT) != names.COMPONENT_TRAIN:
            return False
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        return not ended and _attempt(pod) == max(map(_attempt, workers), default=_attempt(pod))

    async def _pods(self, job: Manifest, child_jobs: list[Manifest]) -> list[Manifest]:
        """The job's pods, read once from the API server where the cache may lag behind the Job's.

        Two watches have no common order: a Job can be seen to have finished before its pods' last words
        are seen, and a decision without them would be wrong for good.
        """
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        pods = self._cached_pods(job, child_jobs)
        unheard = _uids([child for child in child_jobs if _finished(child) and not _ended(child, pods)])
        if all(job_uid in self._pods_read for job_uid in unheard):
            return pods
        selector = f"{names.LABEL_JOB_UID}={uid}"
        for pod in (await self._client.list(PODS, namespace, label_selector=selector))[0]:
            self._caches.seen(PODS, pod)
        for job_uid in unheard:
            _remember(self._pods_read, job_uid, True)
        return self._cached_pods(job, child_jobs)

    def _cached_pods(self, job: Manifest, child_jobs: list[Manifest]) -> list[Manifest]:
        metadata, children = job["metadata"], _uids(child_jobs)
        pods = self._caches.pods.store.by_index("job", job_key(metadata["namespace"], metadata["uid"]))
        return [pod for pod in pods if is_pod_of(pod, metadata["name"], children)]

    def _seconds_since_status_write(self, uid: str) -> float | None:
        written = self._status_written.get(uid)
        return None if written is None else self._clock() - written


def _remember(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)


def _finished(job: Manifest) -> bool:
    """Has every pod of this batch Job stopped, in the Job controller's words?"""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def _ended(job: Manifest, pods: list[Manifest]) -> bool:
    """Are there pods of this batch Job, and has each ended?"""
    uid = job["metadata"]["uid"]
    own = [pod for pod in pods if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences") or ())]
    phases = [(pod.get("status") or {}).get("phase") for pod in own]
    return bool(phases) and all(phase in ("Succeeded", "Failed") for phase in phases)


def _uids(manifests: list[Manifest]) -> list[str]:
    return [manifest["metadata"]["uid"] for manifest in manifests]


def _names(manifests: list[Manifest]) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in manifests]


def _attempt(manifest: Manifest) -> int:
    """Number of the attempt that a worker Job or pod belongs to; 0 for everything else."""
    label = (manifest["metadata"].get("labels") or {}).get(names.LABEL_ATTEMPT, "")
    return int(label) if label.isdecimal() else 0


def _awaited(job: Manifest, child_jobs: list[Manifest]) -> tuple[str, ...]:
    """Objects that the spec names, while the job waits for them: once it has a child, its pods tell. None
    for a spec that can't be read, which the reconcile reports."""
    if child_jobs or (job.get("status") or {}).get("data"):
        return ()
    try:
        return references(parse_spec(job.get("spec") or {}))
    except ValidationError:
        return ()
