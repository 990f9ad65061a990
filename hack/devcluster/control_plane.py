"""Starts and stops etcd, API server, controller-manager and scheduler as plain processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from hack.devcluster.binaries import link_programs
from hack.devcluster.pki import Authority, write_kubeconfig
from hack.devcluster.state import ClusterError, PidFile, StateDir, tail_of, write_file

SERVICE_RANGE = "10.96.0.0/16"
POD_RANGE = "10.244.0.0/16"
ADVERTISED_ADDRESS = "192.0.2.1"
"""Never used for traffic. Any address but a loopback one lets the API server start without a network."""

# Left out: what serves clouds, kubeadm, real certificates of kubelets, or volumes that nobody attaches here.
UNUSED_CONTROLLERS = (
    "bootstrap-signer-controller",
    "token-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "horizontal-pod-autoscaler-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "ttl-controller",
)

AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]}
- {level: Metadata}
"""


@dataclass(frozen=True)
class ControlPlaneOptions:
    """What tests may want to differ from Kubernetes' own defaults."""

    node_grace_seconds: int = 16
    """A Node without a heartbeat for so long is NotReady (upstream: 50 s)."""


@dataclass(frozen=True)
class Ports:
    """Free ports, asked from the kernel."""

    etcd: int
    etcd_peer: int
    api: int


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def etcd_command(state: StateDir, ports: Ports) -> list[str]:
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        "etcd",
        "--name=devcluster",
        f"--data-dir={state.root / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=devcluster={peer}",
        f"--cert-file={state.pki / 'etcd.crt'}",
        f"--key-file={state.pki / 'etcd.key'}",
        f"--trusted-ca-file={state.pki / 'ca.crt'}",
        "--client-cert-auth",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server_command(state: StateDir, ports: Ports) -> list[str]:
    pki = state.pki
    return [
        "kube-apiserver",
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'api-server-etcd.crt'}",
        f"--etcd-keyfile={pki / 'api-server-etcd.key'}",
        "--bind-address=127.0.0.1",
        f"--advertise-address={ADVERTISED_ADDRESS}",
        f"--secure-port={ports.api}",
        f"--tls-cert-file={pki / 'api-server.crt'}",
        f"--tls-private-key-file={pki / 'api-server.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'api-server-node.crt'}",
        f"--kubelet-client-key={pki / 'api-server-node.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--allow-privileged=true",
        f"--audit-policy-file={state.root / 'audit-policy.yaml'}",
        f"--audit-log-path={state.audit_log}",
        "--audit-log-maxsize=1000",
        "--profiling=false",
    ]


def controller_manager_command(state: StateDir, options: ControlPlaneOptions) -> list[str]:
    kubeconfig = state.pki / "controller-manager.kubeconfig"
    controllers = ",".join(["*", *(f"-{name}" for name in UNUSED_CONTROLLERS)])
    return [
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={state.pki / 'service-account.key'}",
        f"--root-ca-file={state.pki / 'ca.crt'}",
        f"--controllers={controllers}",
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_RANGE}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--node-monitor-period=2s",
        f"--node-monitor-grace-period={options.node_grace_seconds}s",
        "--profiling=false",
    ]


def scheduler_command(state: StateDir) -> list[str]:
    kubeconfig = state.pki / "scheduler.kubeconfig"
    return [
        "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--profiling=false",
    ]


class ControlPlane:
    """The four programs. One that ends by itself ends them all: without etcd, say, the API server hangs."""

    def __init__(self, state: StateDir, options: ControlPlaneOptions) -> None:
        self.state = state
        self.options = options
        etcd, peer, api = free_ports(3)
        self.ports = Ports(etcd, peer, api)
        self.server = f"https://127.0.0.1:{api}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def prepare(self) -> None:
        """Certificates, kubeconfigs and links to the programs."""
        state, authority = self.state, Authority(self.state.pki)
        state.logs.mkdir(parents=True, exist_ok=True)
        state.storage.mkdir(parents=True, exist_ok=True)
        link_programs(state.binaries)
        authority.create()
        authority.issue("etcd", "etcd", server_names=["127.0.0.1", "localhost"])
        authority.issue("api-server-etcd", "kube-apiserver")
        names = ["127.0.0.1", "localhost", "10.96.0.1", "kubernetes", "kubernetes.default"]
        names += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        authority.issue("api-server", "kube-apiserver", server_names=names)
        authority.issue("api-server-node", "kube-apiserver-kubelet-client", ["kubeadm:cluster-admins"])
        write_kubeconfig(state, self.server, state.kubeconfig, "admin", ["system:masters"])
        for program in ("controller-manager", "scheduler"):
            path = state.pki / f"{program}.kubeconfig"
            write_kubeconfig(state, self.server, path, f"system:kube-{program}")
        write_file(state.root / "audit-policy.yaml", AUDIT_POLICY)

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start all; returns when the API server is ready. ``session`` trusts the CA and is an admin."""
        self._spawn(etcd_command(self.state, self.ports))
        self._spawn(api_server_command(self.state, self.ports))
        await self._wait_ready(session, 90)
        self._spawn(controller_manager_command(self.state, self.options))
        self._spawn(scheduler_command(self.state))

    def dead(self) -> tuple[str, int] | None:
        """Name and exit code of a program that ended, if one did."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                return name, code
        return None

    def check(self) -> None:
        """ClusterError with the end of its log when a program has ended."""
        dead = self.dead()
        if dead is not None:
            log = self.state.logs / f"{dead[0]}.log"
            raise ClusterError(f"{dead[0]} ended with exit code {dead[1]}.{tail_of(log)}")

    def stop(self) -> None:
        """Stop in reverse order and wait for each: an old etcd on its port would hang the next start."""
        for name in reversed(list(self._processes)):
            process = self._processes[name]
            process.terminate()
            try:
                process.wait(timeout=2 if name == "kube-apiserver" else 5)
            except subprocess.TimeoutExpired:
                # The API server waits for watchers to leave; nothing here is lost by not waiting.
                process.kill()
                process.wait(timeout=10)
            PidFile(self.state, name).path.unlink(missing_ok=True)
        self._processes.clear()

    def _spawn(self, command: Sequence[str]) -> None:
        name = command[0]
        with (self.state.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.state.binaries / name), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.state.root,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.state.root)},
            )
        self._processes[name] = process
        PidFile(self.state, name).write(process.pid)

    async def _wait_ready(self, session: aiohttp.ClientSession, deadline_seconds: float) -> None:
        end = time.monotonic() + deadline_seconds
        while True:
            self.check()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=5)
                async with session.get(f"{self.server}/readyz", timeout=timeout) as response:
                    if response.status == 200:
                        return
            if time.monotonic() > end:
                log: Path = self.state.logs / "kube-apiserver.log"
                raise ClusterError(f"The API server was not ready in {deadline_seconds:g} s.{tail_of(log)}")
            await asyncio.sleep(0.2)
