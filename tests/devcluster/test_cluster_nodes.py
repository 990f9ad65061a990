"""Nodes that fall silent, restart, come and go, and a cluster that leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.devcluster.cluster import ClusterError, DevCluster, NodeSpec
from hack.devcluster.control_plane import ControlPlaneOptions
from hack.devcluster.images import REPOSITORY_ROOT
from hack.devcluster.node_spec import node_mark
from hack.devcluster.process import marked_processes
from hack.devcluster.state import PidFile, process_start_ticks, wait_until
from tests.devcluster.builders import container, pod
from tests.devcluster.watching import wait_gone, wait_log, wait_phase

pytestmark = pytest.mark.cluster

FOREVER = "import time; print('ready', flush=True); time.sleep(600)"


def spec_of(name: str) -> NodeSpec:
    return NodeSpec(name, gpus=2, labels={"pool": "spare"}, backoff_seconds=1)


def test_a_silent_node_becomes_not_ready_and_comes_back(dev_cluster: DevCluster, namespace: str) -> None:
    name = "silent-0"
    dev_cluster.add_node(spec_of(name))
    there = {"kubernetes.io/hostname": name}
    dev_cluster.apply(pod(script=FOREVER, nodeSelector=there), namespace=namespace)
    wait_log(dev_cluster, namespace, "one", "ready")
    mark = node_mark(dev_cluster.state, name)
    assert marked_processes(mark)
    dev_cluster.stop_node(name)
    assert not marked_processes(mark)
    assert dev_cluster.get("pod", "one", namespace)["status"]["phase"] == "Running"  # nobody was told

    def ready_status() -> str:
        conditions = dev_cluster.get("node", name)["status"]["conditions"]
        return next(str(each["status"]) for each in conditions if each["type"] == "Ready")

    dev_cluster.wait_for(lambda: ready_status() == "Unknown", 30, "the node to be NotReady")
    dev_cluster.add_node(spec_of(name))
    failed = wait_phase(dev_cluster, namespace, "one", "Failed")
    assert failed["status"]["reason"] == "NodeRestarted"
    dev_cluster.apply(pod("two", script="print('works')", nodeSelector=there), namespace=namespace)
    wait_phase(dev_cluster, namespace, "two", "Succeeded")
    dev_cluster.delete_node(name)
    wait_gone(dev_cluster, "node", name)


def test_fake_accelerators_are_handed_out(dev_cluster: DevCluster, namespace: str) -> None:
    main = container(FOREVER, resources={"limits": {"nvidia.com/gpu": "8"}})
    dev_cluster.apply(pod(main=main), namespace=namespace)
    running = wait_phase(dev_cluster, namespace, "one", "Running")
    assert running["spec"]["nodeName"] == "gpu-0"
    dev_cluster.apply(pod("two", main=main), namespace=namespace)

    def unschedulable() -> bool:
        conditions = dev_cluster.get("pod", "two", namespace)["status"].get("conditions") or []
        return any("Insufficient nvidia.com/gpu" in each.get("message", "") for each in conditions)

    dev_cluster.wait_for(unschedulable, 30, "the second pod to find no accelerator")
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--grace-period=1", "--wait=false")
    wait_phase(dev_cluster, namespace, "two", "Running")


def test_up_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ClusterError, match="holds something else"):
        DevCluster(tmp_path).up()
    assert (tmp_path / "precious").read_text() == "x"


@pytest.fixture
def small_cluster(tmp_path: Path) -> DevCluster:
    return DevCluster(tmp_path / "c", [NodeSpec("only")], options=ControlPlaneOptions(node_grace_seconds=8))


def pids_of(cluster: DevCluster) -> dict[str, int]:
    names = [path.stem for path in cluster.state.pids.iterdir()]
    found = {name: PidFile(cluster.state, name).pid() for name in names}
    return {name: pid for name, pid in found.items() if pid is not None}


def all_gone(pids: dict[str, int]) -> bool:
    return not [name for name, pid in pids.items() if process_start_ticks(pid) is not None]


def test_when_one_program_dies_all_stop(small_cluster: DevCluster) -> None:
    with small_cluster as cluster:
        cluster.apply(pod(script=FOREVER), namespace="default")
        wait_log(cluster, "default", "one", "ready")
        pids = pids_of(cluster)
        assert {"etcd", "kube-apiserver", "supervisor", "node-only"} <= set(pids)
        os.kill(pids["etcd"], signal.SIGKILL)
        wait_until(lambda: all_gone(pids), 40, "every process to end")
        wait_until(lambda: not marked_processes(cluster.state.cluster_id), 20, "the pods to end")
        assert "etcd ended with exit code -9" in (cluster.state.root / "supervisor.log").read_text()


def test_a_killed_owner_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    script = (
        "import os, signal, sys\n"
        "from hack.devcluster.cluster import DevCluster, NodeSpec\n"
        "DevCluster(sys.argv[1], [NodeSpec('only')]).up()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    cluster = DevCluster(folder)
    try:
        subprocess.run(command, timeout=120, check=False, env=environment)
        assert cluster.state.info_file.is_file()
        wait_until(lambda: not pids_of(cluster), 40, "every process to end", folder / "supervisor.log")
        assert "has ended" in (folder / "supervisor.log").read_text()
    finally:
        cluster.down()


def test_the_command_line_goes_up_and_down(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "hack.devcluster", *arguments, "--dir", str(tmp_path / "c")]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY_ROOT, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    cluster = DevCluster(tmp_path / "c")
    try:
        assert "Ready: export KUBECONFIG=" in run("up", "--nodes", "1", "--gpus", "2")
        assert "Already running" in run("up")
        assert "node-0" in run("status")
        lines = run("env").splitlines()
        assert f"export KUBECONFIG={cluster.kubeconfig}" in lines
        assert cluster.get("node", "node-0")["status"]["capacity"]["nvidia.com/gpu"] == "2"
        pids = pids_of(cluster)
        run("down")
        assert all_gone(pids)
    finally:
        cluster.down()
