"""What every trainer pod has in common: security, scratch space, configuration, the user's pod template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.api.base import SpecModel
from tunewright.api.spec import PodTemplateSpec
from tunewright.children.owner import Owner
from tunewright.children.storage import Mounts
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright_trainer import contract

CONFIG_FOLDER = "/etc/tunewright"
SCRATCH_FOLDER = "/scratch"
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class PodParts:
    """What differs between prepare, workers and export."""

    component: str
    command: str
    """First argument of ``python -m tunewright_trainer``."""
    config_map: str
    image: str
    image_pull_policy: str
    mounts: Mounts
    resources: Mapping[str, Any]
    attempt: int | None = None
    env: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    ports: Sequence[Mapping[str, Any]] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the pod's spec."""


def pod_template(owner: Owner, template: PodTemplateSpec, parts: PodParts) -> Manifest:
    """A pod template that the ``restricted`` Pod Security Standard admits."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # No runAsUser: the image has a numeric USER, and OpenShift assigns its own.
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
            **(_dump(template.security_context) if template.security_context else {}),
        },
        "containers": [_container(template, parts)],
        "volumes": [
            {"name": "config", "configMap": {"name": parts.config_map}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            *parts.volumes,
            *parts.mounts.volumes,
        ],
        **parts.spec,
    }
    if template.service_account_name:
        spec["serviceAccountName"] = template.service_account_name
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": reference.name} for reference in template.image_pull_secrets]
    metadata: dict[str, Any] = {
        # Ours last: a user's label must not cut a pod off from its job.
        "labels": {**(template.labels or {}), **owner.labels(parts.component, parts.attempt)},
        "annotations": {
            "karpenter.sh/do-not-disrupt": "true",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            **(template.annotations or {}),
        },
    }
    return {"metadata": metadata, "spec": spec}


def _dump(model: SpecModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True)


def _container(template: PodTemplateSpec, parts: PodParts) -> Manifest:
    env: list[Mapping[str, Any]] = [
        {"name": contract.ENV_CONFIG, "value": f"{CONFIG_FOLDER}/{names.CONFIG_KEY}"},
        {"name": contract.ENV_MOUNTS, "value": parts.mounts.index},
        {"name": contract.ENV_SCRATCH, "value": SCRATCH_FOLDER},
        {"name": contract.ENV_TERMINATION_LOG, "value": TERMINATION_LOG},
        {"name": "HOME", "value": SCRATCH_FOLDER},
        {"name": "HF_HOME", "value": f"{SCRATCH_FOLDER}/huggingface"},
        {"name": "TRITON_CACHE_DIR", "value": f"{SCRATCH_FOLDER}/triton"},
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        *parts.env,
    ]
    ours = {variable["name"] for variable in env}
    env += [_dump(variable) for variable in template.env or () if variable.name not in ours]
    return {
        "name": names.CONTAINER,
        "image": parts.image,
        "imagePullPolicy": parts.image_pull_policy,
        "command": ["python", "-m", "tunewright_trainer"],
        "args": [parts.command],
        "env": env,
        "resources": dict(parts.resources),
        "ports": list(parts.ports),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},
            *parts.volume_mounts,
            *parts.mounts.volume_mounts,
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        # A crash without a message of our own still shows its last lines.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
