"""The informers that the operator runs, and which job a change in any of them concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from tunewright.cluster import children, strip
from tunewright.cluster.client import Client
from tunewright.cluster.informer import Informer
from tunewright.cluster.resources import CONFIGMAPS, FINETUNEJOBS, JOBS, NODES, PODS, SERVICES, Resource
from tunewright.cluster.store import Indexer, OnChange
from tunewright.core import names
from tunewright.core.model import Manifest

JobKey = tuple[str, str]
"""Namespace and name of a FineTuneJob."""


class Caches:
    """FineTuneJobs, and everything that belongs to one: Jobs, Pods, Services, ConfigMaps; and all Nodes.

    ``enqueue`` is called with the key of each job whose world changed, ``on_job_gone`` with the uid of a
    FineTuneJob that is no more. Run :meth:`run` as a task.
    """

    def __init__(
        self,
        client: Client,
        enqueue: Callable[[JobKey], None],
        *,
        namespace: str | None = None,
        on_job_gone: Callable[[str], None] = lambda uid: None,
    ) -> None:
        self._enqueue = enqueue
        self._on_job_gone = on_job_gone
        self.jobs = Informer(
            client,
            FINETUNEJOBS,
            namespace=namespace,
            strip=strip.whole,
            indexers={"uid": _uid},
            on_change=self._job_changed,
            notify_on_resync=True,
        )
        self.child_jobs = Informer(
            client,
            JOBS,
            namespace=namespace,
            label_selector=names.LABEL_JOB_UID,
            strip=strip.job,
            indexers={"job": children.by_controller},
            on_change=self._child_changed(children.by_controller),
        )
        self.pods = Informer(
            client,
            PODS,
            namespace=namespace,
            label_selector=names.LABEL_JOB_UID,
            strip=strip.pod,
            indexers={"job": children.by_label, "uid": _uid, "node": _node_name},
            on_change=self._child_changed(children.by_label),
        )
        self.services = self._metadata_informer(client, SERVICES, namespace)
        self.config_maps = self._metadata_informer(client, CONFIGMAPS, namespace)
        self.nodes = Informer(client, NODES, strip=strip.node, on_change=self._node_changed)
        self.all: Mapping[str, Informer] = {
            informer.resource.plural: informer
            for informer in (
                self.jobs, self.child_jobs, self.pods, self.services, self.config_maps, self.nodes
            )
        }  # fmt: skip

    async def run(self) -> None:
        """Keep all caches up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for plural, informer in self.all.items():
                group.create_task(informer.run(), name=f"informer of {plural}")

    async def synced(self) -> None:
        """Wait until each cache has been filled once."""
        for informer in self.all.values():
            await informer.synced.wait()

    def seen(self, resource: Resource, manifest: Manifest) -> None:
        """Take in an object from elsewhere: the answer to a write, or kopf's watch."""
        if resource.plural in self.all:
            self.all[resource.plural].store.upsert(manifest)

    def gone(self, resource: Resource, manifest: Manifest) -> None:
        """Take out an object that is known to be gone."""
        if resource.plural in self.all:
            self.all[resource.plural].store.remove(manifest)

    def job_of(self, uid: str) -> Manifest | None:
        """The FineTuneJob with this uid."""
        return next(iter(self.jobs.store.by_index("uid", uid)), None)

    def _metadata_informer(self, client: Client, resource: Resource, namespace: str | None) -> Informer:
        return Informer(
            client,
            resource,
            namespace=namespace,
            label_selector=names.LABEL_JOB_UID,
            metadata_only=True,
            strip=strip.metadata,
            indexers={"job": children.by_controller},
            on_change=self._child_changed(children.by_controller),
        )

    def _job_changed(self, old: Manifest | None, new: Manifest | None) -> None:
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._on_job_gone(old["metadata"]["uid"])
        job = new or old
        if job is not None:
            self._enqueue((job["metadata"]["namespace"], job["metadata"]["name"]))

    def _child_changed(self, keys_of: Indexer) -> OnChange:
        def changed(old: Manifest | None, new: Manifest | None) -> None:
            if old is not None and new is not None and strip.unchanged(old, new):
                return
            self._enqueue_keys(
                {key for manifest in (old, new) if manifest is not None for key in keys_of(manifest)}
            )

        return changed

    def _node_changed(self, old: Manifest | None, new: Manifest | None) -> None:
        if old is not None and new is not None and strip.unchanged(old, new):
            return
        node = new or old
        if node is not None:
            pods = self.pods.store.by_index("node", node["metadata"]["name"])
            self._enqueue_keys({key for pod in pods for key in children.by_label(pod)})

    def _enqueue_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            job = self.job_of(children.uid_in(key))
            if job is not None and key == children.job_key(
                job["metadata"]["namespace"], job["metadata"]["uid"]
            ):
                self._job_changed(None, job)


def _uid(manifest: Manifest) -> Iterable[str]:
    return (manifest["metadata"]["uid"],)


def _node_name(manifest: Manifest) -> Iterable[str]:
    name = (manifest.get("spec") or {}).get("nodeName")
    return (name,) if name else ()
