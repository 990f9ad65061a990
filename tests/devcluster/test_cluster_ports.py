"""A port that somebody else took in the meantime is told apart from other failures, and survived."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hack.devcluster.cluster import PORT_TAKEN
from hack.devcluster.images import REPOSITORY_ROOT

pytestmark = pytest.mark.cluster

TAKES_A_PORT = """
import socket, sys
from hack.devcluster import control_plane, supervisor
holder = socket.create_server(("127.0.0.1", 0))
taken = holder.getsockname()[1]
free = control_plane.free_ports
def with_a_taken_one(count):
    ports = free(count)
    ports[int(sys.argv[2])] = taken
    return ports
control_plane.free_ports = with_a_taken_one
sys.exit(supervisor.main(["--dir", sys.argv[1]]))
"""


@pytest.mark.parametrize("which", ["0", "1", "2"], ids=["etcd", "etcd-peer", "api-server"])
def test_a_taken_port_is_named_at_the_end_of_the_log(tmp_path: Path, which: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKES_A_PORT, str(tmp_path), which],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    # What `up` looks for, in as many lines as it is shown.
    assert PORT_TAKEN in "\n".join(done.stderr.splitlines()[-15:])
