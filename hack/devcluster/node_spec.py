"""Says what a process node is: its name, its declared sizes, and what its pods are given."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from hack.devcluster.state import StateDir, write_file


@dataclass(frozen=True)
class NodeSpec:
    """A node to play. Its sizes are only said, not held: pods share this machine as they find it."""

    name: str
    gpus: int = 0
    """Fake accelerators, as capacity of ``gpu_resource``."""
    labels: dict[str, str] = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    cpus: int = 32
    memory: str = "128Gi"
    taints: list[dict[str, str]] = field(default_factory=list)
    pass_env: dict[str, str] = field(default_factory=dict)
    """Variables that every container gets; a folder among the values is made writable for pods."""
    backoff_seconds: float = 10.0
    """First wait before a crashed container starts again."""


def node_mark(state: StateDir, name: str) -> str:
    """Marks all processes of a node's pods."""
    return f"{state.cluster_id}/{name}"


def save_spec(state: StateDir, spec: NodeSpec) -> None:
    state.node(spec.name).mkdir(parents=True, exist_ok=True)
    write_file(state.node(spec.name) / "spec.json", json.dumps(asdict(spec)))


def load_spec(state: StateDir, name: str) -> NodeSpec:
    return NodeSpec(**json.loads((state.node(name) / "spec.json").read_text()))
