"""The development cluster's control plane with wider client limits, so that they are not what is measured.

Run as a process of its own: it stops all its programs when its owner ends, however that ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hack.devcluster.control_plane import ControlPlane, ControlPlaneOptions
from hack.devcluster.state import ClusterError, PidFile, StateDir, write_file
from hack.devcluster.supervisor import supervise

log = logging.getLogger(__name__)

NODE_GRACE_SECONDS = 3600
"""The benchmark's nodes send no heartbeats."""
CLIENT_LIMITS = ("--kube-api-qps=1000", "--kube-api-burst=2000")
"""Upstream: 20 and 30 requests a second for the controller-manager, 50 and 100 for the scheduler."""
WIDENED = ("kube-controller-manager", "kube-scheduler")


class WideControlPlane(ControlPlane):
    """Everything as tests have it, but for the two programs' limits on requests a second."""

    def _spawn(self, command: Sequence[str]) -> None:
        limits = CLIENT_LIMITS if command[0] in WIDENED else ()
        super()._spawn([*command, *limits])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.control_plane", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="an empty folder for all state")
    parser.add_argument("--owner-pid", type=int, required=True, help="end with this process")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    state = StateDir(options.dir.resolve())
    plane = WideControlPlane(state, ControlPlaneOptions(NODE_GRACE_SECONDS))
    PidFile(state, "supervisor").write(os.getpid())
    try:
        plane.prepare()
        details = {"server": plane.server, "node_grace_seconds": NODE_GRACE_SECONDS}
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
