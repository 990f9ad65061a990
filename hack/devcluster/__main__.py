"""Command line of the development cluster: up, down, status, env."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hack.devcluster.cluster import DevCluster, NodeSpec
from hack.devcluster.control_plane import ControlPlaneOptions
from hack.devcluster.state import ClusterError, PidFile, StateDir

DEFAULT_DIRECTORY = ".devcluster"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hack.devcluster",
        description="A whole Kubernetes on this machine: real API server, etcd, controller-manager and "
        "scheduler, and nodes that run pods as plain processes. No containers, no root needed.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = _command(commands, "up", _up, "start a fresh cluster and return when it is ready")
    up.add_argument("--nodes", type=_count, default=2, help="how many nodes (default 2)")
    up.add_argument("--gpus", type=_count, default=0, help="fake nvidia.com/gpu on each node (default 0)")
    up.add_argument(
        "--pass-env",
        action="append",
        default=[],
        metavar="NAME",
        help="pass this variable of yours to every container (repeatable); pods get none else",
    )
    up.add_argument(
        "--node-grace-seconds",
        type=int,
        default=ControlPlaneOptions.node_grace_seconds,
        help="a node without a heartbeat for so long is NotReady (default %(default)s)",
    )
    _command(commands, "down", _down, "stop all processes of the cluster; its folder stays")
    _command(commands, "status", _status, "say what runs")
    _command(commands, "env", _env, 'print shell lines: eval "$(python -m hack.devcluster env)"')
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return int(text)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=description, description=f"{description[0].upper()}{description[1:]}."
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(DEFAULT_DIRECTORY), help="the cluster's folder (default %(default)s)"
    )
    parser.set_defaults(run=run)
    return parser


def _up(options: argparse.Namespace) -> None:
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}", flush=True)

    missing = [name for name in options.pass_env if name not in os.environ]
    if missing:
        raise ClusterError(f"--pass-env {missing[0]}: it is not set in your environment")
    cluster = DevCluster(
        options.dir,
        [NodeSpec(f"node-{index}", gpus=options.gpus) for index in range(options.nodes)],
        options=ControlPlaneOptions(options.node_grace_seconds),
        pass_env={name: os.environ[name] for name in options.pass_env},
        owned=False,
        report=report,
    )
    if cluster.is_running():
        report(f"Already running in {cluster.state.root}; stop it with: python -m hack.devcluster down")
        return
    try:
        cluster.up()
    except BaseException:
        cluster.down()
        raise


def _down(options: argparse.Namespace) -> None:
    print("Stopping the cluster (about 5 s)", flush=True)
    DevCluster(options.dir).down()
    print("Stopped")


def _status(options: argparse.Namespace) -> None:
    state = StateDir(options.dir.resolve())
    if PidFile(state, "supervisor").pid() is None:
        raise ClusterError(f"No cluster runs in {state.root}")
    names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "supervisor"]
    for name in [*names, *(f"node-{each}" for each in state.node_names())]:
        pid = PidFile(state, name).pid()
        print(f"{name:26} {'stopped' if pid is None else f'process {pid}'}")
    print(DevCluster(options.dir).kubectl("get", "nodes").stdout, end="")


def _env(options: argparse.Namespace) -> None:
    state = StateDir(options.dir.resolve())
    state.info()
    print(f"export KUBECONFIG={shlex.quote(str(state.kubeconfig))}")
    print(f"export PATH={shlex.quote(str(state.binaries))}:$PATH")


if __name__ == "__main__":
    sys.exit(main())
