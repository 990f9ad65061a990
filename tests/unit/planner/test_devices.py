"""GPU memory of the nodes that a job's workers would get."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_node, make_spec
from tunewright.api.spec import parse_spec
from tunewright.planner.devices import GPU_MEMORY_LABEL, device_memory_bytes

MIB = 1024 * 1024


def gpu_node(name: str, mib: str, gpus: str = "4", **labels: str) -> dict[str, Any]:
    return make_node(name, labels={GPU_MEMORY_LABEL: mib, **labels}, allocatable={"nvidia.com/gpu": gpus})


def found(*nodes: dict[str, Any], **compute: Any) -> int | None:
    spec = parse_spec(make_spec(compute={"gpusPerNode": 2, "processesPerNode": None, **compute}))
    return device_memory_bytes(spec.compute, {node["metadata"]["name"]: node for node in nodes})


def test_the_smallest_counts() -> None:
    assert found(gpu_node("a", "80000"), gpu_node("b", "40000")) == 40000 * MIB


@pytest.mark.parametrize(
    "node",
    [
        gpu_node("b", "40000", gpus="1"),
        gpu_node("b", "unknown"),
        make_node("b", labels={GPU_MEMORY_LABEL: "40000"}),
        make_node("b"),
    ],
    ids=["too few GPUs", "odd label", "no GPUs", "bare"],
)
def test_nodes_that_cannot_take_a_worker_do_not_count(node: dict[str, Any]) -> None:
    assert found(gpu_node("a", "80000"), node) == 80000 * MIB
    assert found(node) is None


def test_the_node_selector_holds() -> None:
    nodes = (gpu_node("a", "80000", pool="big"), gpu_node("b", "40000"))
    assert found(*nodes, nodeSelector={"pool": "big"}) == 80000 * MIB
    assert found(*nodes, nodeSelector={"pool": "none"}) is None


def test_cpu_runs_ask_for_no_device() -> None:
    assert found(gpu_node("a", "80000"), gpusPerNode=0, processesPerNode=1) is None
