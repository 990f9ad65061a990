"""Why pods that should run do not run yet: the scheduler's, kubelet's and registry's words, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tunewright.core.observe import ObservedJob, ObservedPod

_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


SETTLING_SECONDS = 5.0
"""How long the end of a Job may be known before the ends of its pods are."""
LONGEST_SETTLING_SECONDS = 60.0
"""The same where pods of the ended Job are still shown as running: news of them is bound to come."""


@dataclass(frozen=True)
class Wait:
    """What pods wait for; ``reason`` is empty when they just need time."""

    reason: str
    message: str
    nodes: bool = False
    """True when they wait for a node."""


def waiting(job: ObservedJob, desired: int) -> Wait | None:
    """The most telling reason why fewer than ``desired`` pods of ``job`` run, or None when all do."""
    for explain in (_unschedulable, _image, _config):
        for pod in job.pods:
            if (wait := explain(pod)) is not None:
                return wait
    scheduled = sum(pod.node is not None for pod in job.pods)
    if scheduled < desired:
        return Wait("", f"{scheduled} of {desired} pods have a node.", nodes=True)
    running = sum(pod.phase in ("Running", "Succeeded") for pod in job.pods)
    if running < desired:
        return Wait("", f"{running} of {desired} pods run.")
    return None


def settling_seconds(job: ObservedJob, now: datetime) -> float:
    """How much longer to wait for what the pods of a Complete or Failed ``job`` have to say; 0: no longer."""
    if job.ended_at is None:
        return 0.0
    passed = (now - job.ended_at).total_seconds()
    limit = SETTLING_SECONDS if all(pod.terminal for pod in job.pods) else LONGEST_SETTLING_SECONDS
    # A clock that was put back must not hold a job up.
    return limit - passed if 0 <= passed < limit else 0.0


def _unschedulable(pod: ObservedPod) -> Wait | None:
    if pod.unschedulable is None or pod.node is not None:
        return None
    return Wait(
        "Unschedulable",
        f"No node can take pod {pod.name}: {pod.unschedulable.rstrip('.')}. Add nodes, or change compute "
        "(gpusPerNode, resources, nodeSelector, tolerations).",
        nodes=True,
    )


def _image(pod: ObservedPod) -> Wait | None:
    if pod.waiting_reason not in _IMAGE:
        return None
    return Wait(
        "ImagePullFailed",
        f"Pod {pod.name} can't get its image ({pod.waiting_reason}): {pod.waiting_message.rstrip('.')}. "
        "Check the image's name and podTemplate.imagePullSecrets.",
    )


def _config(pod: ObservedPod) -> Wait | None:
    if pod.waiting_reason not in _CONFIG:
        return None
    return Wait(
        "ContainerConfigInvalid",
        f"Pod {pod.name} can't start its container ({pod.waiting_reason}): "
        f"{pod.waiting_message.rstrip('.')}.",
    )
