"""Says what of a pod a process node refuses and what it can't enforce; pure."""

from __future__ import annotations

from typing import Any

from hack.devcluster.identity import POD_UID, Identity

Object = dict[str, Any]


def refusal(pod: Object, identity: Identity) -> str | None:
    """Why the pod may not run here, or None. Never run less confined than its spec could believe."""
    spec = pod["spec"]
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(flag):
            return f"{flag} is refused: pods are processes of this machine"
    for volume in spec.get("volumes") or []:
        if "hostPath" in volume:
            return f"volume {volume['name']}: hostPath is refused"
    for container in all_containers(spec):
        reason = _container_refusal(spec, container, identity)
        if reason:
            return f"container {container['name']}: {reason}"
    return None


def _container_refusal(spec: Object, container: Object, identity: Identity) -> str | None:
    context = (spec.get("securityContext") or {}) | (container.get("securityContext") or {})
    if context.get("privileged"):
        return "privileged is refused"
    user = context.get("runAsUser")
    if user is not None and not identity.may_be(user):
        return f"runAsUser {user} is refused: pods run as uid {POD_UID} here"
    if container.get("restartPolicy") == "Always":
        return "a sidecar (an init container with restartPolicy Always) is not played"
    for mount in container.get("volumeMounts") or []:
        if mount["mountPath"].rstrip("/") == "":
            return "mountPath / is refused"
    return None


def not_enforced(pod: Object, identity: Identity) -> list[str]:
    """What the pod asks for and a process can't be held to, in words for an event."""
    spec, found = pod["spec"], []
    contexts = [each.get("securityContext") or {} for each in all_containers(spec)]
    if any(each.get("readOnlyRootFilesystem") for each in contexts):
        found.append("readOnlyRootFilesystem")
    if (spec.get("securityContext") or {}).get("fsGroup") is not None:
        found.append("fsGroup")
    mounts = [mount["mountPath"] for each in all_containers(spec) for mount in each.get("volumeMounts") or []]
    if "/dev/shm" in mounts:
        found.append("the size of /dev/shm")
    if any((each.get("resources") or {}).get("limits") for each in all_containers(spec)):
        found.append("resource limits")
    if any(each.get("lifecycle") for each in all_containers(spec)):
        found.append("lifecycle hooks")
    if identity.note:
        found.append(identity.note)
    return found


def all_containers(spec: Object) -> list[Object]:
    """Init containers, then containers."""
    return [*(spec.get("initContainers") or []), *spec["containers"]]
