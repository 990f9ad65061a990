"""The worker Job: one Indexed Job per attempt, one pod per node, torchrun's rendezvous in its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.api.spec import FineTuneJobSpec, PodTemplateSpec, ResourcesSpec
from tunewright.children.owner import Owner
from tunewright.children.pod import PodParts, pod_template
from tunewright.children.quantity import whole_cpus
from tunewright.children.storage import mounts
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright.core.settings import OperatorSettings
from tunewright_trainer import contract
from tunewright_trainer.contract import TrainerConfig

TOKEN_FOLDER = "/var/run/secrets/tunewright"
TOKEN_SECONDS = 3600
METRICS_PORT = 9400


def worker_job(
    owner: Owner,
    spec: FineTuneJobSpec,
    config: TrainerConfig,
    settings: OperatorSettings,
    image: str,
    attempt: int,
) -> Manifest:
    """The Job of ``attempt``: ``compute.nodes`` pods that live and die together.

    ``backoffLimit: 0`` ends the Job with its first failed pod: a gang that lost a rank can't go on, and the
    operator starts the next attempt from the last checkpoint, with its own count and reason.
    """
    parts = PodParts(
        component=names.COMPONENT_TRAIN,
        command="train",
        config_map=names.train_config(owner.name, attempt),
        image=image,
        image_pull_policy=settings.image_pull_policy,
        mounts=mounts([config.model.source], [config.workspace]),
        resources=_resources(spec),
        attempt=attempt,
        env=[*_rendezvous(owner, config, attempt), *_progress(owner, settings), *_threads(spec, config)]
        + [
            {"name": contract.ENV_ATTEMPT, "value": str(attempt)},
            {"name": contract.ENV_GRACE_SECONDS, "value": str(settings.termination_grace_seconds)},
        ],
        volumes=_volumes(owner, spec, settings, attempt),
        volume_mounts=_volume_mounts(settings),
        ports=[{"name": "metrics", "containerPort": METRICS_PORT}],
        spec=_placement(owner, spec, settings),
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owner.metadata(names.worker_job(owner.name, attempt), names.COMPONENT_TRAIN, attempt),
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.compute.nodes,
            "parallelism": spec.compute.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": pod_template(owner, spec.pod_template or PodTemplateSpec(), parts),
        },
    }


def _rendezvous(owner: Owner, config: TrainerConfig, attempt: int) -> list[dict[str, Any]]:
    job = names.worker_job(owner.name, attempt)
    domain = f"{names.worker_service(owner.name)}.{owner.namespace}.svc"
    port = names.rendezvous_port(owner.uid, attempt)
    return [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # The Job controller appends JOB_COMPLETION_INDEX last, too late for $(…) in the entries below.
        {
            "name": "POD_INDEX",
            "valueFrom": {
                "fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
            },
        },
        {"name": "PET_NNODES", "value": str(config.compute.nodes)},
        {"name": "PET_NPROC_PER_NODE", "value": str(config.compute.processes_per_node)},
        {"name": "PET_RDZV_ID", "value": f"{owner.uid}-a{attempt}"},
        {"name": "PET_RDZV_ENDPOINT", "value": f"{job}-0.{domain}:{port}"},
        {"name": "PET_LOCAL_ADDR", "value": f"{job}-$(POD_INDEX).{domain}"},
        {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"},
    ]


def _progress(owner: Owner, settings: OperatorSettings) -> list[dict[str, Any]]:
    metrics = [{"name": contract.ENV_METRICS_ADDRESS, "value": f"$(POD_IP):{METRICS_PORT}"}]
    if not settings.progress_url:
        return metrics
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{owner.namespace}/trainjobs/{owner.name}/status"
    return metrics + [
        {"name": contract.ENV_PROGRESS_URL, "value": settings.progress_url + path},
        {"name": contract.ENV_PROGRESS_CA, "value": f"{TOKEN_FOLDER}/{names.CA_KEY}"},
        {"name": contract.ENV_PROGRESS_TOKEN, "value": f"{TOKEN_FOLDER}/token"},
    ]


def _threads(spec: FineTuneJobSpec, config: TrainerConfig) -> list[dict[str, Any]]:
    """OpenMP threads per rank: the pod's CPUs shared out, since spinning threads of rivals cost most."""
    cpus = whole_cpus((spec.compute.resources or ResourcesSpec()).cpu or "1")
    threads = max(1, cpus // max(1, config.compute.processes_per_node))
    return [{"name": "OMP_NUM_THREADS", "value": str(threads)}]


def _resources(spec: FineTuneJobSpec) -> Mapping[str, Any]:
    compute = spec.compute
    amounts = (compute.resources or ResourcesSpec()).model_dump(exclude_none=True)
    limits = {name: amount for name, amount in amounts.items() if name == "memory"}
    if compute.gpus_per_node:
        amounts[compute.accelerator_resource] = str(compute.gpus_per_node)
        limits[compute.accelerator_resource] = str(compute.gpus_per_node)
    return {"requests": amounts, "limits": limits}


def _volumes(
    owner: Owner, spec: FineTuneJobSpec, settings: OperatorSettings, attempt: int
) -> list[dict[str, Any]]:
    shared_memory: dict[str, Any] = {"medium": "Memory"}
    if spec.compute.shared_memory:
        shared_memory["sizeLimit"] = spec.compute.shared_memory
    volumes: list[dict[str, Any]] = [{"name": "shared-memory", "emptyDir": shared_memory}]
    if settings.progress_url:
        token = {
            "serviceAccountToken": {
                "audience": names.progress_audience(owner.namespace, owner.name),
                "expirationSeconds": TOKEN_SECONDS,
                "path": "token",
            }
        }
        certificate = {
            "configMap": {
                "name": names.train_config(owner.name, attempt),
                "items": [{"key": names.CA_KEY, "path": names.CA_KEY}],
            }
        }
        volumes.append({"name": "progress", "projected": {"sources": [token, certificate]}})
    return volumes


def _volume_mounts(settings: OperatorSettings) -> list[dict[str, Any]]:
    mounted: list[dict[str, Any]] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    if settings.progress_url:
        mounted.append({"name": "progress", "mountPath": TOKEN_FOLDER, "readOnly": True})
    return mounted


def _placement(owner: Owner, spec: FineTuneJobSpec, settings: OperatorSettings) -> dict[str, Any]:
    compute = spec.compute
    tolerations: list[dict[str, Any]] = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    ]
    if compute.gpus_per_node:
        tolerations.append(
            {"key": compute.accelerator_resource, "operator": "Exists", "effect": "NoSchedule"}
        )
    tolerations += [
        toleration.model_dump(by_alias=True, exclude_none=True) for toleration in compute.tolerations or ()
    ]
    placement: dict[str, Any] = {
        "subdomain": names.worker_service(owner.name),
        "terminationGracePeriodSeconds": settings.termination_grace_seconds,
        "tolerations": tolerations,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {names.LABEL_JOB_UID: owner.uid}},
            }
        ],
    }
    if compute.node_selector:
        placement["nodeSelector"] = dict(compute.node_selector)
    return placement
