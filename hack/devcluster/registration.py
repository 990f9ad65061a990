"""Registers a Node and keeps it alive: status and Lease, as kubelet's heartbeats."""

from __future__ import annotations

import asyncio
import datetime
import logging
import platform
import time

from hack.devcluster.api import MERGE, UNREACHABLE, Api, ApiError, Object
from hack.devcluster.fields import HOST_ADDRESS
from hack.devcluster.node_spec import NodeSpec
from hack.devcluster.pod_status import now_text
from hack.devcluster.state import ClusterError

log = logging.getLogger(__name__)

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
STATUS_EVERY_BEATS = 8
"""The Lease says that the node lives; its whole status is renewed more rarely."""
VERSION = "v1.37.2"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Registration:
    """One node's object and Lease."""

    def __init__(self, api: Api, spec: NodeSpec, port: int, heartbeat_seconds: float) -> None:
        self._api = api
        self._spec = spec
        self._port = port
        self._heartbeat_seconds = heartbeat_seconds

    async def register(self, deadline_seconds: float = 60) -> Object:
        """Create or take over the Node and wait for its pod range; the Node."""
        name = self._spec.name
        end = time.monotonic() + deadline_seconds
        while True:
            try:
                await self._create_or_adopt()
                await self._beat_lease()
                node = await self._write_status()
                if node["spec"].get("podCIDR"):
                    return node
                problem = "it got no pod range from the controller-manager"
            except (ApiError, *UNREACHABLE) as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > end:
                raise ClusterError(f"Node {name} was not registered in {deadline_seconds:g} s: {problem}")
            await asyncio.sleep(0.3)

    async def keep_alive(self) -> None:
        """Heartbeats until cancelled."""
        beats = 0
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            beats += 1
            try:
                await self._beat_lease()
                if beats % STATUS_EVERY_BEATS == 0:
                    await self._write_status()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("Heartbeat: %s", error or type(error).__name__)

    async def _create_or_adopt(self) -> None:
        spec = self._spec
        labels = {
            "kubernetes.io/hostname": spec.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": ARCHITECTURE,
            **spec.labels,
        }
        node = {"metadata": {"name": spec.name, "labels": labels}, "spec": {"taints": spec.taints}}
        try:
            await self._api.create(NODES, node)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._api.patch(f"{NODES}/{spec.name}", {"metadata": {"labels": labels}}, MERGE)

    async def _write_status(self) -> Object:
        spec = self._spec
        capacity = {"cpu": str(spec.cpus), "memory": spec.memory, "pods": "110", "ephemeral-storage": "200Gi"}
        if spec.gpus:
            capacity[spec.gpu_resource] = str(spec.gpus)
        now = now_text()
        conditions = [
            {"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now}
            for kind, status, reason, message in (
                ("Ready", "True", "KubeletReady", "the process node is posting ready status"),
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "not looked at"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure", "not looked at"),
                ("PIDPressure", "False", "KubeletHasSufficientPID", "not looked at"),
            )
        ]
        current = await self._api.get(f"{NODES}/{spec.name}")
        before = {each["type"]: each for each in current["status"].get("conditions") or []}
        for each in conditions:
            old = before.get(each["type"])
            unchanged = old is not None and old["status"] == each["status"]
            each["lastTransitionTime"] = old["lastTransitionTime"] if old and unchanged else now
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": HOST_ADDRESS},
                {"type": "Hostname", "address": spec.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "architecture": ARCHITECTURE,
                "bootID": "",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": spec.name,
                "operatingSystem": "linux",
                "osImage": "process node",
                "systemUUID": spec.name,
            },
        }
        return await self._api.patch(f"{NODES}/{spec.name}/status", {"status": status})

    async def _beat_lease(self) -> None:
        name = self._spec.name
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": max(1, round(self._heartbeat_seconds * 4)),
            "renewTime": now,
        }
        try:
            await self._api.patch(f"{LEASES}/{name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.create(LEASES, {"metadata": {"name": name}, "spec": spec})
