"""A cluster to measure in: control plane, nodes without processes, the chart's rights, operators."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from bench.audit import AuditLog
from bench.jobs import CLAIM
from bench.nodes import READY_FILE
from bench.operator_process import OperatorProcess
from bench.process import Child
from hack.bootstrap import helm_path
from hack.devcluster.api import Api, ApiError, client_tls
from hack.devcluster.cluster import DevCluster
from hack.devcluster.images import REPOSITORY_ROOT
from hack.devcluster.pki import Authority
from hack.devcluster.state import ClusterError, write_file

Manifest = dict[str, Any]

SYSTEM_NAMESPACE = "tunewright-system"
RELEASE = "tunewright"
OPERATOR_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RELEASE}"
GENERATOR_USER = "bench-load"
TOKEN_HOURS = 4
START_DEADLINE_SECONDS = 150


class BenchCluster:
    """Use as an async context manager; whatever it started is gone afterwards."""

    def __init__(self, folder: Path, node_count: int, settings: Mapping[str, str]) -> None:
        """``settings``: environment of the operator beside what the chart sets."""
        self._cluster = DevCluster(folder, nodes=())
        self.state = self._cluster.state
        self.audit = AuditLog(self.state.audit_log, OPERATOR_USER)
        self._node_count = node_count
        self._settings = dict(settings)
        self._chart_env: dict[str, str] = {}
        self._children: list[Child] = []
        self._replicas = 0
        self._api: Api | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def api(self) -> Api:
        """The load generator's own connection, as an administrator of its own name."""
        assert self._api is not None, "BenchCluster is an async context manager"
        return self._api

    def start_operator(self) -> OperatorProcess:
        """One more replica; the caller waits until it is ready."""
        self._replicas += 1
        name = f"operator-{self._replicas}"
        operator = OperatorProcess(name, self._chart_env, self._login(), self.state.logs / f"{name}.log")
        self._children.append(operator.child)
        return operator

    async def stop_child(self, child: Child) -> None:
        """SIGTERM, and wait without blocking the event loop."""
        await asyncio.to_thread(child.stop)

    async def namespace(self, name: str) -> None:
        """A namespace with its ServiceAccount and the bound claim that jobs name."""
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Ti"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": name, "name": CLAIM},
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "volumeName": name,
                "resources": {"requests": {"storage": "1Ti"}},
            },
        }
        await self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        await self.api.create("/api/v1/persistentvolumes", volume)
        claims = f"/api/v1/namespaces/{name}/persistentvolumeclaims"
        await self.api.create(claims, claim)
        await self._appears(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        await self._appears(f"{claims}/{CLAIM}", phase="Bound")

    async def _start(self) -> None:
        root = self.state.root
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise ClusterError(f"{root} is not empty; name a new folder")
        plane = self._child(["bench.control_plane", "--dir", str(root), "--owner-pid", str(os.getpid())])
        await self._file(self.state.ready_file, plane)
        certificate, key = Authority(self.state.pki).issue(GENERATOR_USER, GENERATOR_USER, ["system:masters"])
        self._api = Api(self._cluster.server, client_tls(self.state.pki / "ca.crt", certificate, key))
        await self._api.__aenter__()
        await asyncio.to_thread(self._install)
        nodes = self._child(["bench.nodes", "--dir", str(root), "--count", str(self._node_count)])
        await self._file(root / READY_FILE, nodes)

    async def _stop(self) -> None:
        if self._api is not None:
            await self._api.__aexit__(None, None, None)
            self._api = None
        for child in reversed(self._children):  # the control plane is the first
            await self.stop_child(child)
        self._children.clear()

    def _install(self) -> None:
        """Everything of the chart but what runs pods: CRD, ServiceAccount and its rights."""
        rendered = _render_chart()
        deployment = next(each for each in rendered if each["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        self._chart_env = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        self._cluster.kubectl("create", "namespace", SYSTEM_NAMESPACE)
        kept = [each for each in rendered if each["kind"] not in ("Deployment", "Service")]
        self._cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(kept))
        crd = "crd/finetunejobs.tunewright.dev"
        self._cluster.kubectl("wait", "--for=condition=Established", crd, "--timeout=30s")

    def _login(self) -> dict[str, str]:
        """A folder as kubelet projects it for the ServiceAccount, and where the API server is."""
        folder = self.state.root / "service-account"
        folder.mkdir(exist_ok=True)
        asked = ("create", "token", RELEASE, "--namespace", SYSTEM_NAMESPACE, f"--duration={TOKEN_HOURS}h")
        write_file(folder / "token", self._cluster.kubectl(*asked).stdout.strip())
        write_file(folder / "ca.crt", (self.state.pki / "ca.crt").read_bytes())
        write_file(folder / "namespace", SYSTEM_NAMESPACE)
        host, _, port = self._cluster.server.removeprefix("https://").rpartition(":")
        return {
            "POD_NAMESPACE": SYSTEM_NAMESPACE,
            "TUNEWRIGHT_SERVICE_ACCOUNT_DIR": str(folder),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            **self._settings,
        }

    def _child(self, module: list[str]) -> Child:
        child = Child(module, self.state.root / f"{module[0]}.log")
        self._children.append(child)
        return child

    async def _file(self, path: Path, child: Child) -> None:
        """Wait until ``child`` has written ``path``."""
        async with asyncio.timeout(START_DEADLINE_SECONDS):
            while not await asyncio.to_thread(path.is_file):
                child.check()
                await asyncio.sleep(0.1)

    async def _appears(self, path: str, phase: str | None = None) -> None:
        """Wait until the object at ``path`` is there, and in ``phase`` if one is given."""
        async with asyncio.timeout(30):
            while True:
                try:
                    found = await self.api.get(path)
                    if phase in (None, found.get("status", {}).get("phase")):
                        return
                except ApiError as error:
                    if error.status != 404:
                        raise
                await asyncio.sleep(0.1)


def _render_chart() -> list[Manifest]:
    chart = str(REPOSITORY_ROOT / "charts" / "tunewright")
    command = [str(helm_path()), "template", RELEASE, chart, "--namespace", SYSTEM_NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"helm template: {done.stderr.strip()}")
    return [each for each in yaml.safe_load_all(done.stdout) if each]
