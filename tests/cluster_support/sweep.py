"""A cluster in which a job's whole life takes seconds, and the same life again with the operator killed once.

API server, controller-manager and scheduler are real, so are the operator and its rights; only the nodes
answer without running anything, as in the benchmarks.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.jobs import CLAIM
from bench.nodes import READY_FILE
from bench.process import Child
from hack.bootstrap import helm_path
from hack.devcluster.cluster import DevCluster
from hack.devcluster.control_plane import free_ports
from hack.devcluster.state import ClusterError, wait_until, write_file
from tests.cluster.operator_process import OperatorProcess
from tests.cluster_support.admin import Admin, Object
from tests.cluster_support.compare import Hide, essence, settled
from tests.cluster_support.installation import CHART, RELEASE, SYSTEM
from tests.cluster_support.kill_proxy import KillProxy, Moment, Write
from tests.cluster_support.stories import NAME, Story

NODES = 3
LIFE_SECONDS = 90


@dataclass(frozen=True)
class Life:
    """What is left of a life, without what differs from run to run."""

    status: Object
    objects: Object
    """Children by kind and name."""
    created: Counter[str]
    """What the operator created, from the audit log: kind and name, refused ones left out."""
    pods: Counter[str]
    """Pods that were ever made, by Job."""
    deleted: Counter[str]
    """What the operator deleted."""


class Sweep:
    """The cluster, its nodes, the proxy. As a context manager it leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = DevCluster(folder / "cluster", [])
        self._runs = 0

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        try:
            self.api = Admin(self.cluster)
            self._install()
            root = self.cluster.state.root
            nodes = ["bench.nodes", "--dir", str(root), "--count", str(NODES)]
            self._nodes = Child(nodes, root / "nodes.log")
            wait_until((root / READY_FILE).is_file, 30, "the nodes", root / "nodes.log")
            self.proxy = KillProxy(self.cluster)
            self.proxy.__enter__()
        except BaseException:
            self.cluster.down()
            raise
        self._login = self._credentials()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.__exit__(None, None, None)
        self._nodes.stop()
        self.api.close()
        self.cluster.down()

    def _install(self) -> None:
        """The chart without a replica: its CRD, ServiceAccount and rights."""
        command = [str(helm_path()), "install", RELEASE, str(CHART), "--namespace", SYSTEM]
        command += ["--create-namespace", "--set", "replicas=0"]
        done = subprocess.run(command, env=self.cluster.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        crd = "crd/finetunejobs.tunewright.dev"
        self.cluster.kubectl("wait", "--for=condition=Established", crd, "--timeout=30s")

    def _credentials(self) -> dict[str, str]:
        """The chart's ServiceAccount as kubelet would project it, and the proxy as the API server."""
        folder = self.folder / "service-account"
        folder.mkdir()
        token = self.cluster.kubectl("create", "token", RELEASE, "-n", SYSTEM, "--duration=4h").stdout
        write_file(folder / "token", token.strip())
        write_file(folder / "ca.crt", (self.cluster.state.pki / "ca.crt").read_bytes())
        write_file(folder / "namespace", SYSTEM)
        http, progress = free_ports(2)
        return {
            "KUBECONFIG": "",
            "TUNEWRIGHT_SERVICE_ACCOUNT_DIR": str(folder),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.proxy.port),
            "TUNEWRIGHT_HTTP_BIND": f"127.0.0.1:{http}",
            "TUNEWRIGHT_PROGRESS_BIND": f"127.0.0.1:{progress}",
            "TUNEWRIGHT_PROGRESS_URL": f"https://127.0.0.1:{progress}",
            # A killed leader's Lease would have to run out each time; hand-over has tests of its own.
            "TUNEWRIGHT_LEADER_ELECT": "false",
            "TUNEWRIGHT_STATUS_SECONDS": "0",
        }

    # --- One life -------------------------------------------------------------------------------------

    def namespace(self) -> str:
        """A fresh one, with the bound claim that jobs name."""
        self._runs += 1
        name = f"life-{self._runs}"
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        storage = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        size = {"storage": "1Ti"}
        volume = {
            "metadata": {"name": name},
            "spec": {
                **storage,
                "capacity": size,
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": name, "name": CLAIM},
            },
        }
        self.api.call("POST", "/api/v1/persistentvolumes", volume)
        claim = {
            "metadata": {"name": CLAIM},
            "spec": {**storage, "volumeName": name, "resources": {"requests": size}},
        }
        self.api.call("POST", f"/api/v1/namespaces/{name}/persistentvolumeclaims", claim)
        wait_until(lambda: self.api.find("serviceaccounts", name, "default"), 30, f"the account of {name}")
        return name

    def live(self, story: Story, kill_after: int | None = None, moment: Moment = "answered") -> Life:
        """Run ``story`` in a namespace of its own, the operator killed right after a write of it, once."""
        namespace = self.namespace()
        log = self.folder / f"{namespace}.log"
        with OperatorProcess(self.cluster, SYSTEM, log, **self._login) as operator:
            self.proxy.watch(namespace, operator.process.pid, kill_after, moment)
            story.begin(self.api, namespace)
            if kill_after is not None:
                self.wait(
                    namespace,
                    lambda: self.proxy.killed or story.advance(self.api, namespace),
                    f"write {kill_after}",
                )
            if not self.proxy.killed:
                return self._end(story, namespace, operator)
            operator.process.wait(timeout=10)
        log = self.folder / f"{namespace}-again.log"
        with OperatorProcess(self.cluster, SYSTEM, log, **self._login) as operator:
            return self._end(story, namespace, operator)

    def _end(self, story: Story, namespace: str, operator: OperatorProcess) -> Life:
        self.wait(namespace, lambda: story.advance(self.api, namespace), "the life's end", operator)
        life = self._look(namespace)
        operator.process.kill()
        return life

    def wait(
        self, namespace: str, condition: Any, what: str, operator: OperatorProcess | None = None
    ) -> None:
        """Wait for ``condition``; fails with the status and the operator's log."""
        try:
            wait_until(condition, LIFE_SECONDS, what)
        except ClusterError as error:
            job = self.status(namespace)
            writes = [write.kind for write in self.proxy.writes]
            log = operator.log()[-4000:] if operator else ""
            raise AssertionError(f"{error}\nJob: {json.dumps(job)}\nWrites: {writes}\n{log}") from None

    def status(self, namespace: str) -> Object:
        return (self.api.find("finetunejobs", namespace, NAME) or {}).get("status") or {}

    # --- Looking back ---------------------------------------------------------------------------------

    def _look(self, namespace: str) -> Life:
        job = self.api.find("finetunejobs", namespace, NAME) or {}
        hide = Hide(namespace, (job.get("metadata") or {}).get("uid", ""))
        objects = {
            f"{plural}/{each['metadata']['name']}": hide(essence(each))
            for plural in ("jobs", "configmaps", "services")
            for each in self.api.list(plural, namespace)
            if each["metadata"]["name"] != "kube-root-ca.crt"
        }
        return Life(
            status=hide(settled(job.get("status") or {})),
            objects=objects,
            created=self._audited(namespace, "create", f"{SYSTEM}:{RELEASE}"),
            # Pods are made by generateName, so the first request that names one binds it to its node.
            pods=self._audited(namespace, "create", "system:kube-scheduler"),
            deleted=self._audited(namespace, "delete", f"{SYSTEM}:{RELEASE}"),
        )

    def _audited(self, namespace: str, verb: str, user: str) -> Counter[str]:
        """Accepted requests in a namespace by kind and name, events left out; pods under their Job's name."""
        found: Counter[str] = Counter()
        for line in self.cluster.audit_log.read_text().splitlines():
            if f'"{namespace}"' not in line or user not in line:
                continue
            entry = json.loads(line)
            reference = entry.get("objectRef") or {}
            accepted = 200 <= (entry.get("responseStatus") or {}).get("code", 0) < 300
            if (
                entry["verb"] != verb
                or entry["stage"] != "ResponseComplete"
                or reference.get("namespace") != namespace
                or reference["resource"] in ("events", "secrets")
                or not entry["user"]["username"].endswith(user)
                or not accepted
            ):
                continue
            name = reference.get("name", "")
            if reference["resource"] == "pods":
                name = re.sub(r"-[a-z0-9]{5}$", "", name)
            found[f"{reference['resource']}/{name}"] += 1
        return found


def one_of_each_kind(writes: list[Write]) -> list[int]:
    """Positions (from 1) of the first write of each kind, and of the last status write."""
    first = {write.kind: number for number, write in reversed(list(enumerate(writes, 1)))}
    last = max(number for number, write in enumerate(writes, 1) if write.subresource == "status")
    return sorted({*first.values(), last})
