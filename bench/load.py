"""The load generator: creates jobs in an open loop, and notes from watches when what became of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench import jobs
from hack.devcluster.api import UNREACHABLE, Api, ApiError
from tunewright.core import names

Object = dict[str, Any]

END_PHASES = ("Succeeded", "Failed")
CREATE_TRIES = 20
NOTHING_NEW_SECONDS = 120.0
"""A wait for jobs ends when nothing at all happened for so long."""


class Timeline:
    """When each of a namespace's jobs reached which milestone, by the monotonic clock of this process.

    Milestones, in order: ``created``, ``prepare_job``, ``prepare_pods``, ``facts`` (the prepare pod's
    termination message), ``prepare_complete``, ``train_job``, ``train_pods`` (all of them),
    ``train_complete``, ``export_job``, ``export_pods``, ``export_complete``, ``ended``, ``released`` (ended,
    and without our finalizer: the operator's last write); and ``phase:X``.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        self.moments: dict[str, dict[str, float]] = {}
        self.phases: dict[str, str] = {}
        self.jobs: dict[str, Object] = {}
        """The FineTuneJobs as last seen."""
        self._pods: Counter[tuple[str, str]] = Counter()
        self._pod_uids: set[str] = set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches run inside of the context."""
        async with asyncio.TaskGroup() as group:
            where = self.namespace
            tasks = [
                group.create_task(self._follow(jobs.path(where), self._job)),
                group.create_task(self._follow(f"/apis/batch/v1/namespaces/{where}/jobs", self._child)),
                group.create_task(self._follow(f"/api/v1/namespaces/{where}/pods", self._pod)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def between(self, start: str, end: str) -> list[float]:
        """Milliseconds from one milestone to a later one, of each job that reached both."""
        return [
            1000 * (moments[end] - moments[start])
            for moments in self.moments.values()
            if start in moments and end in moments
        ]

    def span_seconds(self, end: str, start: str = "created") -> float:
        """From the first job's ``start`` to the last job's ``end``."""
        first = min(moments[start] for moments in self.moments.values() if start in moments)
        return max(moments[end] for moments in self.moments.values() if end in moments) - first

    def reached(self, milestone: str) -> int:
        """How many jobs have reached it."""
        return sum(milestone in moments for moments in self.moments.values())

    async def wait(self, milestone: str, count: int) -> None:
        """Wait until ``count`` jobs reached ``milestone``.

        Raises TimeoutError when nothing happened for NOTHING_NEW_SECONDS, with where the jobs stand.
        """
        while self.reached(milestone) < count:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), NOTHING_NEW_SECONDS)
            except TimeoutError:
                where = dict(Counter(self.phases.values()))
                reached = f"{self.reached(milestone)} of {count} jobs of {self.namespace} reached {milestone}"
                raise TimeoutError(f"{reached}; phases: {where}") from None

    async def _follow(self, path: str, take: Any) -> None:
        async for kind, item in self._api.follow(path):
            now = time.monotonic()
            for each in item if kind == "SYNC" else (item,):
                if kind != "DELETED":
                    take(each, now)

    def _job(self, job: Object, now: float) -> None:
        name = job["metadata"]["name"]
        phase = (job.get("status") or {}).get("phase", "")
        self.phases[name] = phase
        self.jobs[name] = job
        self._note(name, "created", now)
        if phase:
            self._note(name, f"phase:{phase}", now)
        if phase in END_PHASES:
            self._note(name, "ended", now)
            if names.FINALIZER not in (job["metadata"].get("finalizers") or ()):
                self._note(name, "released", now)

    def _child(self, child: Object, now: float) -> None:
        labels = child["metadata"]["labels"]
        job, component = labels[names.LABEL_JOB_NAME], labels[names.LABEL_COMPONENT]
        self._note(job, f"{component}_job", now)
        conditions = (child.get("status") or {}).get("conditions") or ()
        if any(each["type"] == "Complete" and each["status"] == "True" for each in conditions):
            self._note(job, f"{component}_complete", now)

    def _pod(self, pod: Object, now: float) -> None:
        metadata, labels = pod["metadata"], pod["metadata"]["labels"]
        job, component = labels[names.LABEL_JOB_NAME], labels[names.LABEL_COMPONENT]
        if metadata["uid"] not in self._pod_uids:
            self._pod_uids.add(metadata["uid"])
            self._pods[job, component] += 1
            if self._pods[job, component] == self._wanted(job, component):
                self._note(job, f"{component}_pods", now)
        if component == names.COMPONENT_PREPARE and pod["status"].get("phase") == "Succeeded":
            self._note(job, "facts", now)

    def _wanted(self, job: str, component: str) -> int:
        if component != names.COMPONENT_TRAIN:
            return 1
        nodes: int = self.jobs[job]["spec"]["compute"]["nodes"]
        return nodes

    def _note(self, job: str, milestone: str, now: float) -> None:
        moments = self.moments.setdefault(job, {})
        if milestone not in moments:
            moments[milestone] = now
            self._changed.set()


async def create_open_loop(api: Api, manifests: Sequence[Object], every_seconds: float) -> None:
    """Create one manifest each ``every_seconds``, whether the ones before are done or not."""
    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, manifest in enumerate(manifests):
            await asyncio.sleep(max(0.0, start + number * every_seconds - time.monotonic()))
            group.create_task(create(api, manifest))


async def create(api: Api, manifest: Object) -> None:
    """Create, again after anything but success; one that is there already was created by a lost answer."""
    path = jobs.path(manifest["metadata"]["namespace"])
    for left in reversed(range(CREATE_TRIES)):
        try:
            await api.create(path, manifest)
            return
        except (ApiError, *UNREACHABLE) as error:
            if isinstance(error, ApiError) and error.status == 409:
                return
            refused = isinstance(error, ApiError) and error.status in (400, 403, 404, 422)
            if refused or left == 0:
                raise
        await asyncio.sleep(0.2)
