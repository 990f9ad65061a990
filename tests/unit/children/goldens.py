"""The children of three jobs as YAML files; ``python -m tests.unit.children.goldens`` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.builders import SETTINGS, make_job, make_spec
from tunewright.api.spec import FineTuneJobSpec, parse_spec
from tunewright.children.config import config_map
from tunewright.children.cpu_job import export_job, prepare_job
from tunewright.children.owner import Owner
from tunewright.children.service import worker_service
from tunewright.children.workers import worker_job
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright.core.settings import OperatorSettings
from tunewright.core.translate import trainer_config

FOLDER = Path(__file__).parent / "golden"
IMAGE = "tunewright/trainer:0.1.0"
OWNER = Owner.of(make_job())
PLAN = {
    "zeroStage": 2,
    "microBatch": 1,
    "gradientAccumulation": 2,
    "precision": "FP32",
    "activationCheckpointing": False,
}
NO_PROGRESS = OperatorSettings(trainer_image=IMAGE)

GPU: dict[str, Any] = {
    "compute": {
        "nodes": 2,
        "gpusPerNode": 4,
        "processesPerNode": None,
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}],
        "resources": {"cpu": "16", "memory": "128Gi"},
        "sharedMemory": "16Gi",
    },
    "training": {"batch": {"global": 16}},
    "workspace": {"source": "pvc://scratch"},
    "podTemplate": {
        "labels": {"team": "nlp", "app.kubernetes.io/name": "mine"},
        "annotations": {"note": "x"},
        "serviceAccountName": "tuner",
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "HOME", "value": "/root"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
    },
}


def children(spec: FineTuneJobSpec, settings: OperatorSettings) -> dict[str, Manifest]:
    """Every child of a job by a short name."""
    before = trainer_config(OWNER, spec, "v1:hash")
    after = trainer_config(OWNER, spec, "v1:hash", plan=PLAN, prepared_key="k-1")
    name = names.train_config(OWNER.name, 2)
    ca_pem = settings.progress_ca_pem
    return {
        "prepare-config": config_map(
            OWNER, names.prepare_config(OWNER.name), names.COMPONENT_PREPARE, before
        ),
        "prepare": prepare_job(OWNER, spec, before, settings, IMAGE),
        "service": worker_service(OWNER),
        "train-config": config_map(OWNER, name, names.COMPONENT_TRAIN, after, ca_pem=ca_pem, attempt=2),
        "workers": worker_job(OWNER, spec, after, settings, IMAGE, 2),
        "export": export_job(OWNER, spec, after, settings, IMAGE, name),
    }


def all_children() -> dict[str, Manifest]:
    """Children of a CPU job, a GPU job with every field of compute and podTemplate, and one that reports to
    nobody; only what differs is kept of the second and the third."""
    cpu = children(parse_spec(make_spec()), SETTINGS)
    gpu = children(parse_spec(make_spec(**GPU)), SETTINGS)
    silent = children(parse_spec(make_spec()), NO_PROGRESS)
    return (
        {f"cpu-{name}": manifest for name, manifest in cpu.items()}
        | {f"gpu-{name}": gpu[name] for name in ("prepare", "workers", "export")}
        | {f"silent-{name}": silent[name] for name in ("train-config", "workers")}
    )


def rendered(manifest: Manifest) -> str:
    """As YAML; configuration is laid open instead of standing there as one string."""
    shown = json.loads(json.dumps(manifest))
    if names.CONFIG_KEY in shown.get("data", {}):
        shown["data"][names.CONFIG_KEY] = json.loads(shown["data"][names.CONFIG_KEY])
    return yaml.safe_dump(shown, sort_keys=False, width=110)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, manifest in all_children().items():
        (FOLDER / f"{name}.yaml").write_text(rendered(manifest))
