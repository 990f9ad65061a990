"""Fixtures for tests that need a real cluster: one per session, a fresh namespace per test.

tests/conftest.py makes them available everywhere, so that a session has one cluster.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from hack.devcluster.cluster import ClusterError, DevCluster, NodeSpec

_numbers = itertools.count(1)

GPU_NODE = "gpu-0"
CPU_NODES = ("node-0", "node-1")


@pytest.fixture(scope="session")
def dev_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Two CPU nodes and one with eight fake ``nvidia.com/gpu``; crashed containers restart soon."""
    nodes = [NodeSpec(name, backoff_seconds=1) for name in CPU_NODES]
    nodes.append(NodeSpec(GPU_NODE, gpus=8, backoff_seconds=1))
    with DevCluster(tmp_path_factory.mktemp("devcluster"), nodes) as cluster:
        yield cluster


@pytest.fixture
def namespace(dev_cluster: DevCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own with its default ServiceAccount; deleted in the background afterwards."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    name = f"{readable}-{next(_numbers)}"
    dev_cluster.kubectl("create", "namespace", name)

    def has_account() -> bool:
        return bool(dev_cluster.get("serviceaccount", "default", name))

    dev_cluster.wait_for(has_account, 30, f"the default ServiceAccount of {name}")
    try:
        yield name
    finally:
        dev_cluster.kubectl("delete", "namespace", name, "--wait=false")


__all__ = ["CPU_NODES", "GPU_NODE", "ClusterError", "DevCluster", "NodeSpec", "dev_cluster", "namespace"]
