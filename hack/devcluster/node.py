"""A process node: plays kubelet by running the pods bound to it as local processes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

from hack.devcluster.api import Api, client_tls
from hack.devcluster.events import Recorder
from hack.devcluster.identity import choose_identity
from hack.devcluster.logs import LogServer
from hack.devcluster.node_spec import NodeSpec, load_spec, node_mark
from hack.devcluster.pod import NodeContext
from hack.devcluster.pod_manager import PodManager
from hack.devcluster.process import kill_marked
from hack.devcluster.registration import Registration
from hack.devcluster.state import ClusterError, PidFile, StateDir, write_file

log = logging.getLogger(__name__)


async def run_node(state: StateDir, spec: NodeSpec) -> None:
    """Play the node until SIGTERM, or until the cluster's supervisor is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    info, mark = state.info(), node_mark(state, spec.name)
    folder, pki = state.node(spec.name), state.pki
    await kill_marked(mark)  # what an earlier life of this node left running
    certificate, key = (folder / f"client.{end}" for end in ("crt", "key"))
    async with Api(info["server"], client_tls(pki / "ca.crt", certificate, key)) as api:
        context = _context(state, spec, api, mark)
        manager = PodManager(context)
        logs = LogServer(manager.find)
        port = await logs.start(pki / "ca.crt", certificate, key)
        registration = Registration(api, spec, port, heartbeat_seconds=info["node_grace_seconds"] / 4)
        node = await registration.register()
        manager.set_pod_range(node["spec"]["podCIDR"])
        tasks = [
            asyncio.create_task(registration.keep_alive(), name="heartbeat"),
            asyncio.create_task(manager.follow_pods(), name="pods"),
            asyncio.create_task(manager.follow_services(), name="services"),
            asyncio.create_task(context.recorder.run(), name="events"),
        ]
        write_file(folder / "ready", f"{port}\n")
        log.info("Node %s is up, logs on port %d", spec.name, port)
        try:
            await _until_over(state, tasks, stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await manager.abandon()
            await kill_marked(mark)
            await logs.stop()


def _context(state: StateDir, spec: NodeSpec, api: Api, mark: str) -> NodeContext:
    identity = choose_identity()
    if identity.note:
        log.warning("Not enforced: %s", identity.note)
    folder = state.node(spec.name)
    for each in (folder / "pods", folder / "finished-logs"):
        each.mkdir(parents=True, exist_ok=True)
    for value in spec.pass_env.values():
        if value.startswith("/") and Path(value).is_dir():
            identity.give_tree(Path(value))
    return NodeContext(
        name=spec.name,
        api=api,
        identity=identity,
        mark=mark,
        storage=state.storage,
        pods_folder=folder / "pods",
        finished_logs=folder / "finished-logs",
        recorder=Recorder(api, spec.name),
        passed=dict(spec.pass_env),
        backoff_seconds=spec.backoff_seconds,
    )


async def _until_over(state: StateDir, tasks: list[asyncio.Task[Any]], stop: asyncio.Event) -> None:
    supervisor = PidFile(state, "supervisor")
    while not stop.is_set():
        for task in tasks:
            if task.done():
                raise ClusterError(f"The node's {task.get_name()} task ended: {task.exception()!r}")
        if supervisor.pid() is None:
            log.warning("The cluster is gone")
            return
        try:
            await asyncio.wait_for(stop.wait(), 1)
        except TimeoutError:
            continue


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hack.devcluster.node", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    log.info("Python %s, process %d", platform.python_version(), os.getpid())
    state = StateDir(options.dir.resolve())
    try:
        asyncio.run(run_node(state, load_spec(state, options.name)))
    except ClusterError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
