"""The headless Service through which the ranks of a job find each other."""

from __future__ import annotations

from tunewright.children.owner import Owner
from tunewright.core import names
from tunewright.core.model import Manifest


def worker_service(owner: Owner) -> Manifest:
    """One Service for all attempts; names resolve before pods are ready, since the rendezvous needs them."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(names.worker_service(owner.name), names.COMPONENT_TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {
                names.LABEL_JOB_UID: owner.uid,
                names.LABEL_COMPONENT: names.COMPONENT_TRAIN,
            },
        },
    }
