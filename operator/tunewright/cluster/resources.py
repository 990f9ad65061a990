"""The resources that the operator reads and writes, and how their addresses are built."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tunewright.core import names


@dataclass(frozen=True)
class Resource:
    """One resource type of the API server. ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in a manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection (all namespaces if ``namespace`` is None), object or subresource.

        Raises ValueError for an object of a namespaced resource without a namespace.
        """
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name}: a namespace is needed")
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


FINETUNEJOBS = Resource(names.GROUP, names.VERSION, names.PLURAL, names.KIND)
JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
PERSISTENTVOLUMECLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
TOKENREVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)

ALL = (
    FINETUNEJOBS, JOBS, PODS, NODES, SERVICES, CONFIGMAPS, SECRETS,
    PERSISTENTVOLUMECLAIMS, LEASES, EVENTS, TOKENREVIEWS,
)  # fmt: skip
BY_PLURAL = {resource.plural: resource for resource in ALL}
_BY_TYPE = {(resource.api_version, resource.kind): resource for resource in ALL}


def of(manifest: dict[str, object]) -> Resource:
    """The resource of a manifest, by its apiVersion and kind.

    Raises KeyError, naming both, for a type that the operator has no business with.
    """
    key = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    if key not in _BY_TYPE:
        raise KeyError(f"{key[0]} {key[1]} is not a type that the operator writes")
    return _BY_TYPE[key]
