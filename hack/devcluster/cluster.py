"""Drives a development cluster from Python; the command line and the test fixtures are both made of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from hack.devcluster import addresses
from hack.devcluster.control_plane import ControlPlaneOptions
from hack.devcluster.images import REPOSITORY_ROOT
from hack.devcluster.node_spec import NodeSpec, node_mark, save_spec
from hack.devcluster.pki import Authority, write_kubeconfig
from hack.devcluster.process import kill_marked_and_wait
from hack.devcluster.state import ClusterError, PidFile, StateDir, wait_until

__all__ = ["ClusterError", "DevCluster", "NodeSpec"]

START_DEADLINE_SECONDS = 150
START_ATTEMPTS = 3
PORT_TAKEN = "address already in use"
NODE_DEADLINE_SECONDS = 90
PROCESS_ENVIRONMENT = ("PATH", "LANG", "KUBEBUILDER_ASSETS", "TUNEWRIGHT_CACHE", "HOME")
"""What the cluster's own processes get of the caller's environment; pods get none of it."""


class DevCluster:
    """A cluster in a folder. As a context manager it starts fresh and leaves no process behind.

    ``owned``: the cluster ends with this process, however that ends.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        nodes: Iterable[NodeSpec] = (NodeSpec("node-0"), NodeSpec("node-1")),
        *,
        options: ControlPlaneOptions | None = None,
        pass_env: Mapping[str, str] | None = None,
        owned: bool = True,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.state = StateDir(Path(directory).resolve())
        self.nodes = list(nodes)
        self.options = options or ControlPlaneOptions()
        self.pass_env = dict(pass_env or {})
        self._owned = owned
        self._report = report
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # --- Life -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Start control plane and nodes; returns when all nodes are Ready. Raises ClusterError."""
        if self.is_running():
            raise ClusterError(f"A cluster runs in {self.state.root}; stop it first: {self._command('down')}")
        for attempt in range(1, START_ATTEMPTS + 1):
            self._clear()
            self._report("Starting etcd, API server, controller-manager and scheduler (about 10 s)")
            try:
                self._start_control_plane()
                break
            except ClusterError as error:
                # A free port was taken by somebody else before the program listened on it.
                if PORT_TAKEN not in str(error) or attempt == START_ATTEMPTS:
                    raise
                self._report("A port was taken meanwhile; again with others")
        self._start_nodes()

    def _start_control_plane(self) -> None:
        command = ["hack.devcluster.supervisor", "--dir", str(self.state.root)]
        command += ["--node-grace-seconds", str(self.options.node_grace_seconds)]
        if self._owned:
            command += ["--owner-pid", str(os.getpid())]
        supervisor = self._spawn("supervisor", command, self.state.root / "supervisor.log")

        def is_ready() -> bool:
            if supervisor.poll() is not None:
                wait_until(
                    lambda: False, 0, "the control plane, which ended", self.state.root / "supervisor.log"
                )
            return self.state.ready_file.is_file()

        explain = self.state.root / "supervisor.log"
        wait_until(is_ready, START_DEADLINE_SECONDS, "the control plane", explain)

    def _start_nodes(self) -> None:
        self._report(f"Starting {len(self.nodes)} process nodes (about 4 s)")
        for spec in self.nodes:
            self._start_node(spec)
        for spec in self.nodes:
            self._wait_node(spec.name)
        self._report(f"Ready: export KUBECONFIG={self.state.kubeconfig}")

    def down(self) -> None:
        """Stop every process of the cluster; the folder stays for whoever reads its logs."""
        for name in self.state.node_names():
            self._end_node(name, signal.SIGTERM)
        # The supervisor stops four programs, each with a grace of its own.
        PidFile(self.state, "supervisor").stop(grace_seconds=25)
        for program in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            PidFile(self.state, program).stop(grace_seconds=0)  # only if the supervisor was killed
        kill_marked_and_wait(self.state.cluster_id)
        for child in self._children.values():
            child.wait(timeout=10)
        self._children.clear()

    def is_running(self) -> bool:
        return PidFile(self.state, "supervisor").pid() is not None

    def pid(self, program: str) -> int:
        """Process id of, say, etcd, supervisor or node-<name>, for tests that stop or stall it."""
        found = PidFile(self.state, program).pid()
        if found is None:
            raise ClusterError(f"{program} doesn't run in {self.state.root}")
        return found

    # --- Nodes ----------------------------------------------------------------------------------------

    def add_node(self, spec: NodeSpec) -> None:
        """Start one more node, or one that was stopped; returns when it is Ready."""
        self._start_node(spec)
        self._wait_node(spec.name)

    def stop_node(self, name: str) -> None:
        """The node falls silent: its processes are killed, nobody is told, its Node object stays."""
        self._end_node(name, signal.SIGKILL)

    def delete_node(self, name: str) -> None:
        """The machine is gone and its Node object with it, as when a cloud takes it away."""
        self.stop_node(name)
        self.kubectl("delete", "node", name, "--wait=false")

    def _start_node(self, spec: NodeSpec) -> None:
        spec = replace(spec, pass_env=self.pass_env | spec.pass_env)
        folder = self.state.node(spec.name)
        save_spec(self.state, spec)
        (folder / "ready").unlink(missing_ok=True)
        user = f"system:node:{spec.name}"
        write_kubeconfig(self.state, self.server, folder / "kubeconfig", user, ["system:nodes"])
        # The same certificate serves the node's logs to the API server.
        certificate, key = Authority(self.state.pki).issue(
            f"node-{spec.name}", user, ["system:nodes"], server_names=["127.0.0.1"]
        )
        shutil.copy(certificate, folder / "client.crt")
        shutil.copy(key, folder / "client.key")
        command = ["hack.devcluster.node", "--dir", str(self.state.root), "--name", spec.name]
        self._spawn(f"node-{spec.name}", command, folder / "node.log")

    def _wait_node(self, name: str) -> None:
        folder = self.state.node(name)
        wait_until((folder / "ready").is_file, NODE_DEADLINE_SECONDS, f"node {name}", folder / "node.log")
        self.wait_for(lambda: self.node_is_ready(name), NODE_DEADLINE_SECONDS, f"node {name} to be Ready")

    def node_is_ready(self, name: str) -> bool:
        """Ready, and free of the taints with which the controller-manager keeps pods away."""
        node = self.get("node", name)
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions") or []}
        taints = [each["key"] for each in node["spec"].get("taints") or []]
        is_tainted = any(key.startswith("node.kubernetes.io/") for key in taints)
        return conditions.get("Ready") == "True" and not is_tainted

    def _end_node(self, name: str, first: signal.Signals) -> None:
        PidFile(self.state, f"node-{name}").stop(grace_seconds=10, first=first)
        kill_marked_and_wait(node_mark(self.state, name))
        child = self._children.pop(f"node-{name}", None)
        if child is not None:
            child.wait(timeout=10)

    # --- Use ------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig."""
        return self.state.kubeconfig

    @property
    def audit_log(self) -> Path:
        """JSON lines, one per request (level Metadata)."""
        return self.state.audit_log

    @property
    def server(self) -> str:
        """URL of the API server."""
        server: str = self.state.info()["server"]
        return server

    @property
    def env(self) -> dict[str, str]:
        """The caller's environment with KUBECONFIG, and kubectl on PATH."""
        path = f"{self.state.binaries}:{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; ClusterError with its words if it fails and ``check`` is set."""
        command = [str(self.state.binaries / "kubectl"), *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=self.env, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def apply(self, *documents: dict[str, Any] | str, namespace: str | None = None) -> None:
        """``kubectl apply`` of objects or YAML texts."""
        texts = [each if isinstance(each, str) else yaml.safe_dump(each) for each in documents]
        where = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", *where, "-f", "-", stdin="\n---\n".join(texts))

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object; ClusterError when there's none."""
        where = ["--namespace", namespace] if namespace else []
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, *where, "-o", "json").stdout)
        return found

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Objects of a kind, with further arguments of ``kubectl get``."""
        listed: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *arguments, "-o", "json").stdout)[
            "items"
        ]
        return listed

    def logs(self, pod: str, namespace: str, *arguments: str) -> str:
        """A pod's log."""
        return self.kubectl("logs", pod, "--namespace", namespace, *arguments).stdout

    def wait_for(self, condition: Callable[[], object], deadline_seconds: float, what: str) -> None:
        """Poll until ``condition`` is true; a ClusterError of its own means not yet.

        Raises ClusterError past the deadline.
        """
        last = ""

        def holds() -> bool:
            nonlocal last
            try:
                return bool(condition())
            except ClusterError as error:
                last = str(error)
                return False

        try:
            wait_until(holds, deadline_seconds, what)
        except ClusterError as error:
            raise ClusterError(f"{error} {last}".strip()) from None

    # --- Inside ---------------------------------------------------------------------------------------

    def _spawn(self, name: str, module: Sequence[str], log_file: Path) -> subprocess.Popen[bytes]:
        environment = {key: os.environ[key] for key in PROCESS_ENVIRONMENT if key in os.environ}
        environment |= {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}
        environment[addresses.SEED] = self.state.cluster_id
        with log_file.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY_ROOT,
                env=environment,
                start_new_session=True,
            )
        PidFile(self.state, name).write(child.pid)
        before = self._children.get(name)
        if before is not None:
            before.wait(timeout=10)
        self._children[name] = child
        return child

    def _clear(self) -> None:
        """Make the folder empty; it must be one of ours, or new."""
        root = self.state.root
        if root.is_dir() and any(root.iterdir()):
            if not self.state.pids.is_dir():
                raise ClusterError(f"{root} holds something else; choose another folder for the cluster")
            self.down()
            shutil.rmtree(root)
        root.mkdir(parents=True, exist_ok=True)

    def _command(self, verb: str) -> str:
        return f"python -m hack.devcluster {verb} --dir {self.state.root}"
