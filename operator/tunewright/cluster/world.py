"""What a reconcile sees and does: the caches, a few single reads, and the one writer behind one door."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from pydantic import ValidationError

from tunewright.api.spec import parse_spec
from tunewright.cluster.apply import Applier
from tunewright.cluster.caches import Caches
from tunewright.cluster.client import Client
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.reference_check import ReferenceCheck
from tunewright.core import names
from tunewright.core.model import Manifest, Plan, World
from tunewright.core.progress import ProgressBook
from tunewright.core.references import references

MOST_STATUS_WRITES_REMEMBERED = 10_000


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
        child_jobs = caches.child_jobs.store.by_index("job", uid)
        return World(
            job=job,
            jobs=tuple(child_jobs),
            pods=tuple(caches.pods.store.by_index("job", uid)),
            config_maps=tuple(_names(caches.config_maps.store.by_index("job", uid))),
            services=tuple(_names(caches.services.store.by_index("job", uid))),
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
            uid = job["metadata"]["uid"]
            self._status_written.pop(uid, None)
            self._status_written[uid] = self._clock()
            while len(self._status_written) > MOST_STATUS_WRITES_REMEMBERED:
                self._status_written.popitem(last=False)

    def is_current_worker(self, namespace: str, name: str, pod_uid: str) -> bool:
        """Is this a pod of the newest attempt of the job ``name`` that has not ended? Only such a pod may
        report progress: a token outlives its pod."""
        job = self.job(namespace, name)
        pod = next(iter(self._caches.pods.store.by_index("uid", pod_uid)), None)
        if job is None or pod is None or pod["metadata"]["namespace"] != namespace:
            return False
        labels = pod["metadata"].get("labels") or {}
        if labels.get(names.LABEL_JOB_UID) != job["metadata"]["uid"]:
            return False
        if labels.get(names.LABEL_COMPONENT) != names.COMPONENT_TRAIN:
            return False
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        workers = self._caches.child_jobs.store.by_index("job", job["metadata"]["uid"])
        return not ended and _attempt(pod) == max(map(_attempt, workers), default=_attempt(pod))

    def _seconds_since_status_write(self, uid: str) -> float | None:
        written = self._status_written.get(uid)
        return None if written is None else self._clock() - written


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
