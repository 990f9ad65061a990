"""Manifests with sane defaults for the tests of the development cluster."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

TRAINER_IMAGE = "tunewright/trainer:0.1.0"


def container(script: str = "pass", **fields: Any) -> Object:
    """A container that runs a Python script."""
    return {"name": "main", "image": TRAINER_IMAGE, "command": ["python", "-u", "-c", script]} | fields


def pod(name: str = "one", script: str = "pass", *, main: Object | None = None, **spec: Any) -> Object:
    """A pod of one container that isn't restarted; further arguments are fields of its spec."""
    defaults: Object = {"restartPolicy": "Never", "containers": [main or container(script)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": defaults | spec}


def bound_pod(name: str = "one", namespace: str = "team", **spec: Any) -> Object:
    """A pod as a node sees it."""
    built = pod(name, **spec)
    built["metadata"] |= {"namespace": namespace, "uid": "12345678-aaaa", "labels": {"app": "x"}}
    return built
