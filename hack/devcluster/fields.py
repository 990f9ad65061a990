"""Values of a pod's own fields for the downward API (fieldRef and resourceFieldRef); pure."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from hack.devcluster.addresses import pod_address

HOST_ADDRESS = "127.0.0.1"
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}


class FieldError(Exception):
    """The field is not one that Kubernetes offers."""


def pod_field(pod: dict[str, Any], path: str) -> str:
    """Value of a fieldRef's ``fieldPath``; ``status.podIP`` is the pod's own loopback address."""
    metadata, spec = pod["metadata"], pod["spec"]
    keyed = _KEYED.fullmatch(path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.partition(".")[2]])
        case "metadata.labels" | "metadata.annotations":
            entries = metadata.get(path.partition(".")[2]) or {}
            return "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(entries.items()))
        case "spec.nodeName" | "spec.serviceAccountName":
            return str(spec.get(path.partition(".")[2]) or "")
        case "status.podIP" | "status.podIPs":
            return pod_address(pod)
        case "status.hostIP" | "status.hostIPs":
            return HOST_ADDRESS
    raise FieldError(f"fieldPath {path!r} is not supported")


def resource_field(pod: dict[str, Any], reference: dict[str, Any], container: str | None = None) -> str:
    """Value of a resourceFieldRef such as ``limits.cpu``, rounded up to its divisor; 0 where none is set."""
    name = reference.get("containerName") or container
    kind, _, resource = reference["resource"].partition(".")
    spec = pod["spec"]
    for each in [*spec["containers"], *(spec.get("initContainers") or [])]:
        if each["name"] == name:
            value = ((each.get("resources") or {}).get(kind) or {}).get(resource, "0")
            divisor = quantity(reference.get("divisor") or "1") or Decimal(1)
            return str(math.ceil(quantity(value) / divisor))
    raise FieldError(f"resourceFieldRef names container {name!r}, which the pod doesn't have")


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity such as ``500m`` or ``16Gi`` as a number."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if match is None or match[2] not in _SUFFIXES:
        raise FieldError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIXES[match[2]]
