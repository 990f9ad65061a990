"""Loopback addresses derived from names, the same wherever computed: the cluster's stand-in for DNS."""

from __future__ import annotations

import hashlib
import os
from typing import Any

SEED = "DEVCLUSTER_ADDRESS_SEED"
"""Environment variable that all processes of one cluster share: two clusters on a machine have the same
names in them and must not meet at the same addresses."""


def address_of(name: str, namespace: str) -> str:
    """Address in 127.0.0.0/8 for ``name`` (a Service, ``hostname.subdomain``, or a pod) of a namespace.

    Never one of 127.0.0.0/12, where machines keep addresses of their own (127.0.0.1, 127.0.1.1, 127.0.0.53).
    """
    digest = hashlib.sha256(f"{os.environ.get(SEED, '')}/{name}.{namespace}".encode()).digest()
    second = 16 + int.from_bytes(digest[:2], "big") % 239
    return f"127.{second}.{digest[2]}.{1 + digest[3] % 254}"


def pod_address(pod: dict[str, Any]) -> str:
    """Where a pod listens and what its ``status.podIP`` fieldRef says: its own loopback address."""
    spec, metadata = pod["spec"], pod["metadata"]
    hostname, subdomain = spec.get("hostname"), spec.get("subdomain")
    name = f"{hostname}.{subdomain}" if hostname and subdomain else metadata["name"]
    return address_of(name, metadata["namespace"])
