"""What the cluster's nodes offer: the memory of the GPUs that a job's workers would get."""

from __future__ import annotations

from collections.abc import Mapping

from tunewright.api.spec import ComputeSpec
from tunewright.core.model import Manifest

GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
"""MiB per GPU as GPU feature discovery reports it."""


def device_memory_bytes(compute: ComputeSpec, nodes: Mapping[str, Manifest]) -> int | None:
    """Smallest GPU memory among the nodes that could take a worker; None when no node tells, or on CPUs.

    The smallest, because the scheduler may pick any of them.
    """
    if not compute.gpus_per_node:
        return None
    found = [
        int(label) * 1024 * 1024
        for node in nodes.values()
        if _suits(compute, node) and (label := _labels(node).get(GPU_MEMORY_LABEL, "")).isdecimal()
    ]
    return min(found) if found else None


def _labels(node: Manifest) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _suits(compute: ComputeSpec, node: Manifest) -> bool:
    labels = _labels(node)
    offered = (node.get("status", {}).get("allocatable") or {}).get(compute.accelerator_resource, "0")
    return (
        all(labels.get(key) == value for key, value in (compute.node_selector or {}).items())
        and str(offered).isdecimal()
        and int(offered) >= compute.gpus_per_node
    )
