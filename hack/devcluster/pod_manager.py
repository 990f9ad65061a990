"""Keeps one worker per pod bound to the node, and settles pods of the node's earlier life."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

from hack.devcluster.api import UNREACHABLE, ApiError, Object
from hack.devcluster.pod import NodeContext, PodWorker

log = logging.getLogger(__name__)

FINAL_PHASES = ("Succeeded", "Failed")


class PodManager:
    """The pods of one node."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._workers: dict[str, PodWorker] = {}
        self._earlier = {path.name for path in node.pods_folder.iterdir()}
        self._addresses: list[str] = []
        self._next_address = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def set_pod_range(self, pod_range: str) -> None:
        self._addresses = [str(each) for each in ipaddress.ip_network(pod_range).hosts()]

    def find(self, namespace: str, name: str) -> PodWorker | None:
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return worker
        return None

    async def follow_services(self) -> None:
        """Keep the names of Services, which environments are rewritten by."""
        known = self._node.services
        async for kind, item in self._node.api.follow("/api/v1/services"):
            if kind == "SYNC":
                known.clear()
                known.update(_key(each) for each in item)
            elif kind == "DELETED":
                known.discard(_key(item))
            else:
                known.add(_key(item))

    async def follow_pods(self) -> None:
        """Start, update and end workers as the API server says."""
        async for kind, item in self._node.api.follow("/api/v1/pods", f"spec.nodeName={self._node.name}"):
            if kind == "SYNC":
                present = {each["metadata"]["uid"] for each in item}
                for uid in set(self._workers) - present:
                    self._gone(uid)
                for each in item:
                    await self._present(each)
            elif kind == "DELETED":
                self._gone(item["metadata"]["uid"])
            else:
                await self._present(item)

    async def abandon(self) -> None:
        """The node goes down: no status is written any more, as when a machine loses its power."""
        tasks = [worker.task for worker in self._workers.values() if worker.task] + list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _present(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        is_final = (pod.get("status") or {}).get("phase") in FINAL_PHASES
        if is_final or uid in self._earlier:
            await self._settle(pod, is_final)
            return
        worker = PodWorker(self._node, pod, self._allocate_address)
        self._workers[uid] = worker
        worker.start()
        worker.update(pod)

    async def _settle(self, pod: Object, is_final: bool) -> None:
        """A pod whose processes ended with the node's earlier life: say so, and let a deleted one go."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        try:
            if not is_final:
                await self._node.api.patch(f"{path}/status", restarted_status(pod))
                self._node.recorder.record(pod, "Warning", "NodeRestarted", "The process node was restarted")
            if metadata.get("deletionTimestamp"):
                body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
                await self._node.api.delete(path, body)
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("Pod %s is not settled: %s", metadata["name"], error)
        except UNREACHABLE as error:
            log.warning("Pod %s is not settled yet: %r", metadata["name"], error)

    def _gone(self, uid: str) -> None:
        self._earlier.discard(uid)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.forget()
            task = asyncio.create_task(self._clean_up(worker))
            self._tasks.add(task)
            task.add_done_callback(self._cleaned_up)

    async def _clean_up(self, worker: PodWorker) -> None:
        if worker.task is not None:
            await asyncio.gather(worker.task, return_exceptions=True)
        await asyncio.to_thread(worker.clean_up)
        self._workers.pop(worker.uid, None)

    def _cleaned_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("Clean-up of a pod failed", exc_info=task.exception())

    def _allocate_address(self) -> str:
        """The next address of the pod range that no pod of this node has."""
        used = {worker.api_address for worker in self._workers.values()}
        for _ in self._addresses:
            address = self._addresses[self._next_address % len(self._addresses)]
            self._next_address += 1
            if address not in used:
                return address
        raise RuntimeError("the node's pod range is used up")


def restarted_status(pod: Object) -> Object:
    """Patch that fails a pod of the node's earlier life."""
    statuses = []
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        running = each["state"].get("running")
        if running:
            ended = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": running["startedAt"]}
            statuses.append(each | {"state": {"terminated": ended}, "ready": False, "started": False})
        else:
            statuses.append(each | {"ready": False})
    ready = {"type": "Ready", "status": "False", "reason": "PodFailed"}
    return {
        "metadata": {"uid": pod["metadata"]["uid"]},
        "status": {
            "phase": "Failed",
            "reason": "NodeRestarted",
            "message": "The process node was restarted, and the pod's processes with it",
            "containerStatuses": statuses,
            "conditions": [ready, ready | {"type": "ContainersReady"}],
        },
    }


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
