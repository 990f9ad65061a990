"""Waits and looks that the cluster tests share."""

from __future__ import annotations

from hack.devcluster.cluster import DevCluster
from tests.devcluster.builders import Object

FINAL = ("Succeeded", "Failed")
DEADLINE_SECONDS = 60


def wait_phase(cluster: DevCluster, namespace: str, name: str, *phases: str) -> Object:
    """The pod once it is in one of the phases (by default: once it has ended)."""
    wanted = phases or FINAL

    def reached() -> bool:
        return cluster.get("pod", name, namespace)["status"].get("phase") in wanted

    cluster.wait_for(reached, DEADLINE_SECONDS, f"pod {name} to be {' or '.join(wanted)}")
    return cluster.get("pod", name, namespace)


def wait_gone(cluster: DevCluster, kind: str, name: str, namespace: str | None = None) -> None:
    where = ["--namespace", namespace] if namespace else []

    def gone() -> bool:
        return not cluster.kubectl("get", kind, name, *where, "--ignore-not-found").stdout

    cluster.wait_for(gone, DEADLINE_SECONDS, f"{kind} {name} to be gone")


def wait_log(cluster: DevCluster, namespace: str, pod: str, text: str) -> str:
    """The pod's log once it holds ``text``."""

    def there() -> bool:
        return text in cluster.logs(pod, namespace)

    cluster.wait_for(there, DEADLINE_SECONDS, f"{text!r} in the log of {pod}")
    return cluster.logs(pod, namespace)


def container_state(pod: Object, index: int = 0) -> Object:
    """``state`` of one of the pod's containers."""
    state: Object = pod["status"]["containerStatuses"][index]["state"]
    return state


def event_reasons(cluster: DevCluster, namespace: str, pod: str) -> dict[str, str]:
    """Reason to message of a pod's events."""
    events = cluster.list("events", "-n", namespace, "--field-selector", f"involvedObject.name={pod}")
    return {event["reason"]: event["message"] for event in events}
