"""The operator as people install it: the chart's Deployment under its own rights, on a cluster of its own.

Of its own, because other tests of a session install charts and run operators too, and two that don't share
a Lease would work on the same jobs.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from hack.bootstrap import helm_path
from hack.devcluster.cluster import ClusterError, DevCluster, NodeSpec
from hack.devcluster.control_plane import ControlPlaneOptions
from hack.devcluster.images import REPOSITORY_ROOT
from hack.devcluster.process import MARK
from hack.devcluster.state import wait_until
from tests.cluster_support.admin import Admin, Object

CHART = REPOSITORY_ROOT / "charts" / "tunewright"
SYSTEM = "tunewright-system"
RELEASE = "tunewright"
SYSTEM_NODE = "system-0"
WORKER_NODES = ("worker-0", "worker-1", "worker-2")
GPU_NODE = "gpu-0"
POOL = {"pool": "workers"}
NODE_GRACE_SECONDS = 8
GRACE_SECONDS = 16
"""Grace period of worker pods: what it takes to save, and no longer than a test likes to wait."""

_WAITS = {
    "TUNEWRIGHT_STATUS_SECONDS": "1",
    "TUNEWRIGHT_NODE_LOST_SECONDS": "3",
    "TUNEWRIGHT_REFERENCE_POLL_SECONDS": "1",
    "TUNEWRIGHT_RESTART_BACKOFF_SECONDS": "1",
    "TUNEWRIGHT_TERMINATION_GRACE_SECONDS": str(GRACE_SECONDS),
}
TRAINER_ENVIRONMENT = {
    "TUNEWRIGHT_PROGRESS_SECONDS": "0.5",
    "TUNEWRIGHT_COLLECTIVE_TIMEOUT_SECONDS": "120",
    "OMP_NUM_THREADS": "1",
}
"""How often ranks report, and how long they wait for each other: both far below what trainings need."""
VALUES: dict[str, Any] = {
    "progress": {"statusSeconds": 1},
    "nodeSelector": {"pool": "system"},
    # Waits that are minutes elsewhere, as an administrator would set them.
    "extraEnv": [{"name": name, "value": value} for name, value in _WAITS.items()],
}


class Installation:
    """A cluster with the chart in it. As a context manager it leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        system = NodeSpec(SYSTEM_NODE, labels={"pool": "system"}, backoff_seconds=0.5)
        workers = [NodeSpec(name, labels=POOL, backoff_seconds=0.5) for name in WORKER_NODES]
        gpus = NodeSpec(GPU_NODE, gpus=2, labels={"pool": "gpus"})
        options = ControlPlaneOptions(node_grace_seconds=NODE_GRACE_SECONDS)
        self.cluster = DevCluster(
            folder, [system, *workers, gpus], options=options, pass_env=TRAINER_ENVIRONMENT
        )

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        try:
            self.api = Admin(self.cluster)
            self.install()
            self.wait_ready()
        except BaseException:
            self.cluster.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.api.close()
        self.cluster.down()

    # --- The chart ------------------------------------------------------------------------------------

    def install(self, verb: str = "install", **values: Any) -> None:
        """``helm install`` or ``upgrade`` with ``values`` beside the installation's own; its words are the
        failure."""
        command = [str(helm_path()), verb, RELEASE, str(CHART), "--namespace", SYSTEM, "--values", "-"]
        command += ["--create-namespace"] if verb == "install" else []
        done = subprocess.run(
            command,
            input=yaml.safe_dump({**VALUES, **values}),
            env=self.cluster.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    def upgrade(self, **values: Any) -> None:
        """``helm upgrade``; returns when it is rolled out."""
        self.install("upgrade", **values)
        rollout = ("rollout", "status", f"deployment/{RELEASE}", "--namespace", SYSTEM, "--timeout=120s")
        self.cluster.kubectl(*rollout, timeout=130)

    # --- The operator's pods --------------------------------------------------------------------------

    def operator_pods(self) -> list[Object]:
        """Pods that are there and not on their way out."""
        pods = self.api.list("pods", SYSTEM, "app.kubernetes.io/component=operator")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def wait_ready(self, pods: int = 1) -> None:
        """Wait until ``pods`` operator pods are Ready and one of them holds the Lease."""

        def holds() -> bool:
            found = self.operator_pods()
            return len(found) == pods and all(is_ready(pod) for pod in found) and self.leader() is not None

        self.wait(holds, 120, f"{pods} operator pod(s) to be ready")

    def leader(self) -> Object | None:
        """The pod that holds the Lease, if it lives."""
        lease = self.api.find("leases", SYSTEM, RELEASE) or {}
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        pods = self.operator_pods()
        return next((pod for pod in pods if holder.startswith(pod["metadata"]["name"])), None)

    def kill_operator(self) -> None:
        """SIGKILL to the leader's process: it can do nothing about it."""
        leader = self.leader()
        assert leader is not None, "no operator leads"
        for pid in pod_processes(leader["metadata"]["uid"]):
            os.kill(pid, signal.SIGKILL)

    def operator_log(self, lines: int = 40) -> str:
        """The end of what the operator's pods have logged, for a failure's message."""
        texts = []
        for pod in self.operator_pods():
            name = pod["metadata"]["name"]
            done = self.cluster.kubectl("logs", name, "-n", SYSTEM, f"--tail={lines}", check=False)
            texts.append(f"--- {name}\n{done.stdout}{done.stderr}")
        return "\n".join(texts)

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for ``condition``; fails with the operator's log."""

        try:
            wait_until(condition, seconds, what)
        except ClusterError as error:
            raise AssertionError(f"{error}\n{self.operator_log()}") from None


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def pod_processes(pod_uid: str) -> dict[int, str]:
    """Process id to command line of everything that runs for a pod on this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except OSError:  # gone meanwhile
            continue
        marks = [each for each in environment.split(b"\0") if each.startswith(f"{MARK}=".encode())]
        if any(f"/{pod_uid}/".encode() in mark for mark in marks):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
