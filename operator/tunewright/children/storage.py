"""Which claims, secrets and ConfigMaps a pod must mount for the URIs it is to read and write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunewright_trainer.contract import Source


@dataclass(frozen=True)
class Mounts:
    """Volumes of a pod, their mounts, and the value of ``TUNEWRIGHT_MOUNTS`` that tells of them."""

    volumes: list[dict[str, Any]]
    volume_mounts: list[dict[str, Any]]
    index: str


def claim_of(uri: str) -> str | None:
    """Name of the claim in ``pvc://claim/path``, None for other schemes."""
    scheme, _, rest = uri.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None


def config_map_of(uri: str) -> str | None:
    """Name of the ConfigMap in ``configmap://name/key``, None for other schemes."""
    scheme, _, rest = uri.partition("://")
    return rest.partition("/")[0] if scheme == "configmap" else None


def mounts(reads: Iterable[Source], writes: Iterable[Source] = ()) -> Mounts:
    """Mounts for ``reads`` and ``writes``; a claim that is only read is mounted read-only."""
    reads, writes = list(reads), list(writes)
    written = {claim for source in writes if (claim := claim_of(source.uri))}
    claims = written | {claim for source in reads if (claim := claim_of(source.uri))}
    secrets = {source.secret for source in (*reads, *writes) if source.secret}
    config_maps = {name for source in reads if (name := config_map_of(source.uri))}

    found: list[tuple[str, str, dict[str, Any], bool]] = [
        ("pvc", claim, {"persistentVolumeClaim": {"claimName": claim}}, claim not in written)
        for claim in sorted(claims)
    ]
    found += [
        ("secret", name, {"secret": {"secretName": name, "defaultMode": 0o440}}, True)
        for name in sorted(secrets)
    ]
    found += [("configmap", name, {"configMap": {"name": name}}, True) for name in sorted(config_maps)]

    # Volume names are numbered: a claim's name may be longer than a volume's may.
    volumes = [{"name": f"source-{i}", **volume} for i, (_, _, volume, _) in enumerate(found)]
    volume_mounts = [
        {
            "name": f"source-{i}",
            "mountPath": f"/mnt/{kind}/{name}",
            **({"readOnly": True} if read_only else {}),
        }
        for i, (kind, name, _, read_only) in enumerate(found)
    ]
    index = {f"{kind}/{name}": f"/mnt/{kind}/{name}" for kind, name, _, _ in found}
    return Mounts(volumes, volume_mounts, json.dumps(index))
