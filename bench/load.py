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
    and without our finalizer: the operator's last write); and ``phase:X``. Where an attempt fails:
    ``train_gone`` (none of its pods runs any more), ``train_failed``, ``train2_job``, ``train2_pods`` …
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        self.moments: dict[str, dict[str, float]] = {}
        self.phases: dict[str, str] = {}
        self.jobs: dict[str, Object] = {}
        """The FineTuneJobs as last seen."""
        self._pods: dict[tuple[str, str], dict[str, bool]] = {}
        """By job and component: uid of each pod that was ever there, and whether it may still run."""
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches run inside of the context."""
        async with asyncio.TaskGroup() as group:
            where = self.namespace
            tasks = [
                group.create_task(self._follow(jobs.path(where), self.saw_job)),
                group.create_task(self._follow(f"/apis/batch/v1/namespaces/{where}/jobs", self.saw_child)),
                group.create_task(self._follow(f"/api/v1/namespaces/{where}/pods", self.saw_pod)),
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
                take(each, now, kind == "DELETED")

    def saw_job(self, job: Object, now: float, deleted: bool = False) -> None:
        """Take in a FineTuneJob as a watch told of it at ``now``."""
        if deleted:
            return
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

    def saw_child(self, child: Object, now: float, deleted: bool = False) -> None:
        """Take in a batch Job."""
        job, component = _belongs_to(child)
        self._note(job, f"{component}_job", now)
        for each in (child.get("status") or {}).get("conditions") or ():
            if each["type"] in ("Complete", "Failed") and each["status"] == "True":
                self._note(job, f"{component}_{each['type'].lower()}", now)

    def saw_pod(self, pod: Object, now: float, deleted: bool = False) -> None:
        """Take in a pod."""
        job, component = _belongs_to(pod)
        phase = pod["status"].get("phase")
        pods = self._pods.setdefault((job, component), {})
        pods[pod["metadata"]["uid"]] = not deleted and phase not in END_PHASES
        if len(pods) == self._wanted(job, component):
            self._note(job, f"{component}_pods", now)
            if not any(pods.values()):
                self._note(job, f"{component}_gone", now)
        if component == names.COMPONENT_PREPARE and phase == "Succeeded":
            self._note(job, "facts", now)

    def _wanted(self, job: str, component: str) -> int:
        if not component.startswith(names.COMPONENT_TRAIN):
            return 1
        nodes: int = self.jobs[job]["spec"]["compute"]["nodes"]
        return nodes

    def _note(self, job: str, milestone: str, now: float) -> None:
        moments = self.moments.setdefault(job, {})
        if milestone not in moments:
            moments[milestone] = now
            self._changed.set()


def _belongs_to(child: Object) -> tuple[str, str]:
    """Job and component of a child; a further attempt's component is ``train2`` and so on."""
    labels = child["metadata"]["labels"]
    attempt = labels.get(names.LABEL_ATTEMPT, "1")
    return labels[names.LABEL_JOB_NAME], labels[names.LABEL_COMPONENT] + (attempt if attempt != "1" else "")


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
