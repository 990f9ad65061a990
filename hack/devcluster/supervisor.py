"""The process behind a cluster: control plane, storage and Service proxy; when one part dies, all stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from hack.devcluster.api import Api, ApiError, client_tls
from hack.devcluster.control_plane import ControlPlane, ControlPlaneOptions
from hack.devcluster.service_proxy import ServiceProxy
from hack.devcluster.state import ClusterError, PidFile, StateDir, process_start_ticks, tail_of, write_file
from hack.devcluster.storage import run_storage, storage_class

log = logging.getLogger(__name__)

DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


async def supervise(state: StateDir, plane: ControlPlane, owner_pid: int | None) -> str:
    """Run everything; returns why it ended. ``owner_pid``: end with that process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pki = state.pki
    tls = client_tls(pki / "ca.crt", pki / "admin.crt", pki / "admin.key")
    async with Api(plane.server, tls) as api:
        await plane.start(api.session)
        await _first_objects(api, plane)
        tasks = [
            asyncio.create_task(run_storage(api, state), name="storage"),
            asyncio.create_task(ServiceProxy(api).run(), name="service proxy"),
        ]
        write_file(state.ready_file, "ready\n")
        log.info("Ready")
        try:
            return await _until_over(plane, tasks, stop, owner_pid)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _first_objects(api: Api, plane: ControlPlane) -> None:
    await api.create("/apis/storage.k8s.io/v1/storageclasses", storage_class())
    end = time.monotonic() + 60
    while True:
        plane.check()
        try:
            await api.get(DEFAULT_ACCOUNT)
        except ApiError as error:
            if error.status != 404:
                raise
            if time.monotonic() > end:
                tail = tail_of(plane.state.logs / "kube-controller-manager.log")
                raise ClusterError(f"No default ServiceAccount appeared in 60 s.{tail}") from None
        else:
            return
        await asyncio.sleep(0.2)


async def _until_over(
    plane: ControlPlane, tasks: list[asyncio.Task[None]], stop: asyncio.Event, owner_pid: int | None
) -> str:
    owner_start = process_start_ticks(owner_pid) if owner_pid else None
    while not stop.is_set():
        plane.check()
        for task in tasks:
            if task.done():
                raise ClusterError(f"The {task.get_name()} ended: {task.exception()!r}")
        if owner_pid and (owner_start is None or process_start_ticks(owner_pid) != owner_start):
            return f"its owner, process {owner_pid}, has ended"
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except TimeoutError:
            continue
    return "asked to stop"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hack.devcluster.supervisor", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--owner-pid", type=int)
    parser.add_argument("--node-grace-seconds", type=int, default=ControlPlaneOptions.node_grace_seconds)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    state = StateDir(options.dir.resolve())
    plane = ControlPlane(state, ControlPlaneOptions(options.node_grace_seconds))
    PidFile(state, "supervisor").write(os.getpid())
    try:
        plane.prepare()
        details = {"server": plane.server, "node_grace_seconds": options.node_grace_seconds}
        write_file(state.info_file, json.dumps(details))
        log.info("Stopping: %s", asyncio.run(supervise(state, plane, options.owner_pid)))
        return 0
    except ClusterError as error:
        log.error("%s", error)
        return 1
    finally:
        plane.stop()
        state.ready_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
