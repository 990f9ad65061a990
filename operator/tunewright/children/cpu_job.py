"""The CPU Jobs around training: prepare before any GPU is taken, export after all are given back."""

from __future__ import annotations

from typing import Any

from tunewright.api.spec import FineTuneJobSpec, PodTemplateSpec
from tunewright.children.owner import Owner
from tunewright.children.pod import PodParts, pod_template
from tunewright.children.storage import Mounts, mounts
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright.core.settings import OperatorSettings
from tunewright_trainer.contract import ExitCode, TrainerConfig

PREPARE_RETRIES = 3
EXPORT_RETRIES = 8
"""Upload is retried for long: the finished adapter is worth more than the wait."""

_USER_ERRORS = [
    ExitCode.CONFIG_INVALID,
    ExitCode.DATA_INVALID,
    ExitCode.MODEL_INVALID,
    ExitCode.AUTHENTICATION_FAILED,
]


def prepare_job(
    owner: Owner, spec: FineTuneJobSpec, config: TrainerConfig, settings: OperatorSettings, image: str
) -> Manifest:
    """The Job that reads model and data on CPU and leaves facts and prepared shards."""
    sources = [config.model.source]
    sources += [entry.source for entry in (*config.dataset.train, *config.dataset.validation)]
    return _job(
        owner,
        spec,
        settings,
        name=names.prepare_job(owner.name),
        component=names.COMPONENT_PREPARE,
        config_map=names.prepare_config(owner.name),
        image=image,
        retries=PREPARE_RETRIES,
        # The destination is looked at before hours are spent on something that can't be stored there.
        mounted=mounts(sources, [config.workspace, config.output.destination]),
        cpu=settings.prepare_cpu,
        memory=settings.prepare_memory,
    )


def export_job(
    owner: Owner,
    spec: FineTuneJobSpec,
    config: TrainerConfig,
    settings: OperatorSettings,
    image: str,
    config_map: str,
) -> Manifest:
    """The Job that brings the finished adapter from the workspace to its destination."""
    return _job(
        owner,
        spec,
        settings,
        name=names.export_job(owner.name),
        component=names.COMPONENT_EXPORT,
        config_map=config_map,
        image=image,
        retries=EXPORT_RETRIES,
        mounted=mounts([config.model.source], [config.workspace, config.output.destination]),
        cpu=settings.export_cpu,
        memory=settings.export_memory,
    )


def _job(
    owner: Owner,
    spec: FineTuneJobSpec,
    settings: OperatorSettings,
    *,
    name: str,
    component: str,
    config_map: str,
    image: str,
    retries: int,
    mounted: Mounts,
    cpu: str,
    memory: str,
) -> Manifest:
    parts = PodParts(
        component=component,
        command=component,
        config_map=config_map,
        image=image,
        image_pull_policy=settings.image_pull_policy,
        mounts=mounted,
        # No CPU limit: a limit would only slow the step down that everything else waits for.
        resources={"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        spec={"terminationGracePeriodSeconds": 30},
    )
    rules: list[dict[str, Any]] = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": names.CONTAINER,
                "operator": "In",
                "values": sorted(int(code) for code in _USER_ERRORS),
            },
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owner.metadata(name, component),
        "spec": {
            "backoffLimit": retries,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            "template": pod_template(owner, spec.pod_template or PodTemplateSpec(), parts),
        },
    }
