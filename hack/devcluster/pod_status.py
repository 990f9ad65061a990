"""Shapes a pod's status from the states of its containers, with kubelet's rules; pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hack.devcluster.fields import HOST_ADDRESS

Object = dict[str, Any]


def now_text() -> str:
    """The present as Kubernetes writes it, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerState:
    """What is known of one container. ``current`` and ``last`` are ``{kind: details}`` as in the API."""

    name: str
    image: str
    current: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    is_ready: bool = False
    has_started: bool = False

    @property
    def exit_code(self) -> int | None:
        """Of a container that has ended; None otherwise."""
        terminated = self.current.get("terminated")
        return None if terminated is None else terminated["exitCode"]

    def status(self, pod_uid: str) -> Object:
        """The entry of ``containerStatuses``."""
        status: Object = {
            "name": self.name,
            "image": self.image,
            "imageID": "" if "waiting" in self.current and not self.last else f"process://{self.image}",
            "state": self.current,
            "lastState": self.last,
            "ready": self.is_ready,
            "started": self.has_started and "running" in self.current,
            "restartCount": self.restarts,
        }
        if "waiting" not in self.current or self.last:
            status["containerID"] = f"process://{pod_uid}/{self.name}/{self.restarts}"
        return status


@dataclass(frozen=True)
class PodFacts:
    """All that a pod's status is made of."""

    pod: Object
    init: Sequence[ContainerState]
    main: Sequence[ContainerState]
    start_time: str
    address: str | None = None
    """The address in ``status.podIP``, once the pod has one."""
    is_terminal: bool = False
    """The pod is being deleted and all its processes have ended."""
    failure: tuple[str, str] | None = None
    """Reason and message of a pod that the node itself failed."""


def pod_status(facts: PodFacts) -> Object:
    """The status to write; conditions keep their transition times from ``facts.pod``."""
    uid = facts.pod["metadata"]["uid"]
    phase = "Failed" if facts.failure else pod_phase(facts)
    status: Object = {
        "phase": phase,
        "startTime": facts.start_time,
        "hostIP": HOST_ADDRESS,
        "hostIPs": [{"ip": HOST_ADDRESS}],
        "conditions": _conditions(facts, phase),
        "containerStatuses": [each.status(uid) for each in facts.main],
        "initContainerStatuses": [each.status(uid) for each in facts.init],
        "qosClass": (facts.pod.get("status") or {}).get("qosClass", "BestEffort"),
    }
    if facts.address is not None:
        status |= {"podIP": facts.address, "podIPs": [{"ip": facts.address}]}
    if facts.failure:
        status |= {"reason": facts.failure[0], "message": facts.failure[1]}
    return status


def pod_phase(facts: PodFacts) -> str:
    """Pending, Running, Succeeded or Failed, as kubelet's getPhase has it."""
    policy = facts.pod["spec"].get("restartPolicy", "Always")
    if any(each.exit_code not in (None, 0) for each in facts.init) and (
        policy == "Never" or facts.is_terminal
    ):
        return "Failed"
    codes = [each.exit_code for each in facts.main]
    has_ended = all(code is not None for code in codes)
    if facts.is_terminal:
        return "Succeeded" if has_ended and not any(codes) else "Failed"
    if not is_initialized(facts):
        return "Pending"
    if any("waiting" in each.current and not each.last for each in facts.main):
        return "Pending"
    if not has_ended or policy == "Always":
        return "Running"
    if not any(codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def is_initialized(facts: PodFacts) -> bool:
    return all(each.exit_code == 0 for each in facts.init)


def _conditions(facts: PodFacts, phase: str) -> list[Object]:
    initialized = is_initialized(facts)
    unready = [each.name for each in facts.main if not each.is_ready]
    if phase in ("Succeeded", "Failed"):
        not_ready = {"reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    else:
        message = f"containers with unready status: [{' '.join(unready)}]"
        not_ready = {"reason": "ContainersNotReady", "message": message}
    not_initialized = {"reason": "ContainersNotInitialized", "message": "containers with incomplete status"}
    has_sandbox = facts.address is not None and phase not in ("Succeeded", "Failed")
    wanted = {
        "PodReadyToStartContainers": (has_sandbox, {}),
        "Initialized": (initialized, {} if initialized else not_initialized),
        "Ready": (not unready, not_ready if unready else {}),
        "ContainersReady": (not unready, not_ready if unready else {}),
    }
    before = {each["type"]: each for each in (facts.pod.get("status") or {}).get("conditions") or []}
    conditions = []
    for kind, (holds, details) in wanted.items():
        status = "True" if holds else "False"
        old = before.get(kind)
        since = old["lastTransitionTime"] if old and old["status"] == status else now_text()
        # None removes what an earlier status said: conditions are merged by type.
        unset = {"reason": None, "message": None}
        conditions.append({"type": kind, "status": status, "lastTransitionTime": since, **unset, **details})
    return conditions
