"""A cluster view over a real local API server, as tests of what a reconcile sees want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.cluster.api_server import ApiServer, client_of, serving, until
from tunewright.cluster.caches import Caches
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.world import ClusterView
from tunewright.core import names
from tunewright.core.progress import ProgressBook

SPEC = {
    "model": {"source": "hf://org/base", "secretRef": {"name": "hub"}},
    "dataset": {"train": [{"configMapRef": {"name": "faq", "key": "train.jsonl"}}]},
    "output": {"destination": "pvc://out/x"},
}


class Scene:
    """A server with one FineTuneJob, caches that follow it, and what they asked to be reconciled."""

    def __init__(self, server: ApiServer, caches: Caches, view: ClusterView) -> None:
        self.server = server
        self.caches = caches
        self.view = view
        self.clock = 0.0
        self.enqueued: list[tuple[str, str]] = []
        self.gone: list[str] = []

    @property
    def job(self) -> dict[str, Any]:
        job = self.view.job("ns", "tune")
        assert job is not None
        return job

    def child(self, kind: str, name: str, attempt: int = 0, owner: str = "", **parts: Any) -> dict[str, Any]:
        """A Job, Pod, ConfigMap or Service of the job."""
        uid = self.job["metadata"]["uid"]
        labels = {names.LABEL_JOB_UID: uid, names.LABEL_COMPONENT: names.COMPONENT_TRAIN}
        if attempt:
            labels[names.LABEL_ATTEMPT] = str(attempt)
        reference: dict[str, Any] = {"kind": names.KIND, "name": "tune", "uid": uid, "controller": True}
        if kind == "Pod":
            reference |= {
                "kind": "Job",
                "name": f"tune-a{attempt or 1}",
                "uid": owner or "of a Job that is gone",
            }
        metadata = {"namespace": "ns", "name": name, "labels": labels, "ownerReferences": [reference]}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **parts}

    async def cached(self, plural: str, name: str, namespace: str = "ns") -> Any:
        store = self.caches.all[plural].store
        await until(lambda: store.get(namespace, name) is not None, f"{plural} {name} is cached")
        return store.get(namespace, name)


@asynccontextmanager
async def open_scene(**options: Any) -> AsyncIterator[Scene]:
    async with serving() as server, client_of(server) as client:
        metadata = {"namespace": "ns", "name": "tune"}
        job = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": SPEC}
        await server.put("finetunejobs", job)
        caches = Caches(
            client, lambda key: scene.enqueued.append(key), on_job_gone=lambda uid: scene.gone.append(uid)
        )
        view = ClusterView(
            client, caches, EventRecorder(client, "x"), ProgressBook(), clock=lambda: scene.clock, **options
        )
        scene = Scene(server, caches, view)
        running = asyncio.create_task(caches.run())
        await caches.synced()
        await until(lambda: len(server.open_watches) == len(caches.all))
        try:
            yield scene
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def on(scenario: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with open_scene(**options) as scene:
            await scenario(scene)

    asyncio.run(main())
