"""Every name, label, annotation and key that the operator gives out; nothing else spells them."""

from __future__ import annotations

import hashlib
import re

GROUP = "tunewright.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"

FINALIZER = f"{GROUP}/cleanup"
FIELD_MANAGER = "tunewright"
REPORTING_CONTROLLER = f"{GROUP}/operator"

LABEL_JOB_NAME = f"{GROUP}/job-name"
LABEL_JOB_UID = f"{GROUP}/job-uid"
LABEL_COMPONENT = f"{GROUP}/component"
"""``prepare``, ``train`` or ``export``."""
LABEL_ATTEMPT = f"{GROUP}/attempt"

COMPONENT_PREPARE = "prepare"
COMPONENT_TRAIN = "train"
COMPONENT_EXPORT = "export"

ANNOTATION_CONFIG_HASH = f"{GROUP}/config-hash"
ANNOTATION_PROGRESS_ADDRESS = f"{GROUP}/progress-address"
"""On the Lease: host:port where the leader takes progress posts; standbys forward theirs there."""

CONTAINER = "trainer"
CONFIG_KEY = "config.json"
CA_KEY = "ca.crt"

# A Job's pod is named <job>-<index>-<random 5>, its hostname <job>-<index>; DNS labels hold 63.
LONGEST_SUFFIX = "-prepare-00000-xxxxx"
MAX_JOB_NAME_LENGTH = 63 - len(LONGEST_SUFFIX)


def prepare_job(job: str) -> str:
    """Name of the prepare Job."""
    return f"{job}-prepare"


def worker_job(job: str, attempt: int) -> str:
    """Name of the worker Job of an attempt (from 1)."""
    return f"{job}-a{attempt}"


def worker_service(job: str) -> str:
    """Name of the headless Service, which is also the subdomain of worker pods."""
    return f"{job}-workers"


def export_job(job: str) -> str:
    """Name of the export Job."""
    return f"{job}-export"


def is_batch_job(job: str, name: str) -> bool:
    """Whether ``name`` is one that a batch Job of ``job`` may bear."""
    attempt = re.fullmatch(re.escape(job) + r"-a([1-9][0-9]*)", name)
    return name in (prepare_job(job), export_job(job)) or attempt is not None


def prepare_config(job: str) -> str:
    """Name of the ConfigMap with prepare's TrainerConfig."""
    return f"{job}-prepare"


def train_config(job: str, attempt: int) -> str:
    """Name of the ConfigMap with an attempt's TrainerConfig; export reads the last one."""
    return f"{job}-a{attempt}"


def progress_audience(namespace: str, job: str) -> str:
    """Audience of the projected ServiceAccount token with which trainers post progress."""
    return f"trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs/{job}/status"


def label_value(text: str) -> str:
    """``text`` as a label value: at most 63 characters, a hash at the end when it had to be cut."""
    if len(text) <= 63:
        return text
    return f"{text[:50]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def rendezvous_port(job_uid: str, attempt: int) -> int:
    """TCP port of an attempt's rendezvous, 20000 to 29999.

    Chosen per attempt because torch's store binds the wildcard address: two gangs that share a host
    (or its network) must not share a port.
    """
    digest = hashlib.sha256(f"{job_uid}/{attempt}".encode()).digest()
    return 20000 + int.from_bytes(digest[:4], "big") % 10000
