"""Makes paths and names of a pod true on this machine: mount paths to folders, cluster names to addresses.

Pure. A pod is told its paths and peers by environment and arguments, so that is all that is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hack.devcluster.addresses import address_of

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOTTED_NAME = re.compile(rf"(?<![\w.@-]){_LABEL}(?:\.{_LABEL})+(?![\w-]|\.\w)")
_BARE_HOST = re.compile(rf"(?<=://)({_LABEL})(?=[:/]|$)")
_WEB_SCHEMES = ("http://", "https://", "tcp://", "grpc://")
_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")


@dataclass(frozen=True)
class Names:
    """What is known of names where a pod runs."""

    namespace: str
    subdomain: str | None = None
    """The pod's own: the only one whose short names are rewritten."""
    services: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """(namespace, name) of the Services that exist: a bare ``<name>.<namespace>`` is rewritten for these."""


class Rewriter:
    """Rewrites one container's texts. ``mounts``: absolute path in the container to path on this machine."""

    def __init__(self, mounts: Mapping[str, str], names: Names) -> None:
        self._mounts = {_normal(path): target for path, target in mounts.items()}
        self._names = names
        longest_first = sorted(self._mounts, key=len, reverse=True)
        alternatives = "|".join(re.escape(path) for path in longest_first)
        # On path boundaries: neither a part of a longer path before (but file:///x is a whole one) nor after.
        boundary = r"(?:(?<![\w.~/-])|(?<=://))"
        self._paths = re.compile(rf"{boundary}(?:{alternatives})(?![\w.-])") if alternatives else None

    def text(self, text: str) -> str:
        """``text`` with mount paths and cluster names replaced, wherever they stand in it."""
        if self._paths is not None:
            text = self._paths.sub(lambda match: self._mounts[match[0]], text)
        text = _DOTTED_NAME.sub(lambda match: self._address(match[0]) or match[0], text)
        return _BARE_HOST.sub(self._bare_host, text)

    def path(self, path: str) -> str | None:
        """Where a path of the container is on this machine; None outside of every mount."""
        path = _normal(path)
        for mount in sorted(self._mounts, key=len, reverse=True):
            if path == mount or path.startswith(f"{mount}/"):
                return self._mounts[mount] + path[len(mount) :]
        return None

    def _address(self, name: str) -> str | None:
        own = self._names
        stem = name.removesuffix(".cluster.local")
        labels = stem.removesuffix(".svc").split(".")
        is_qualified = stem.endswith(".svc")
        if labels == ["kubernetes", "default"]:
            return None  # the API server's name: clients find it by KUBERNETES_SERVICE_HOST
        match labels:
            case [host, subdomain, namespace] if is_qualified or (subdomain, namespace) == (
                own.subdomain,
                own.namespace,
            ):
                return address_of(f"{host}.{subdomain}", namespace)
            case [service, namespace] if is_qualified or (namespace, service) in own.services:
                return address_of(service, namespace)
            case [host, subdomain] if subdomain == own.subdomain:
                return address_of(f"{host}.{subdomain}", own.namespace)
        return None

    def _bare_host(self, match: re.Match[str]) -> str:
        before = match.string[: match.start()]
        if before.endswith(_WEB_SCHEMES) and (self._names.namespace, match[1]) in self._names.services:
            return address_of(match[1], self._names.namespace)
        return match[0]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' ``$(NAME)``: unknown names stay as they are, ``$$(NAME)`` is a literal ``$(NAME)``."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replacement, text)


def _normal(path: str) -> str:
    return path.rstrip("/") or "/"
