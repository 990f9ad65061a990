"""Who a child belongs to: metadata that every child of a job carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunewright.core import names
from tunewright.core.model import Manifest


@dataclass(frozen=True)
class Owner:
    """Identity of a FineTuneJob."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, job: Manifest) -> Owner:
        """Identity of the FineTuneJob stored as ``job``."""
        metadata = job["metadata"]
        return cls(metadata["namespace"], metadata["name"], metadata["uid"])

    def labels(self, component: str, attempt: int | None = None) -> dict[str, str]:
        """Labels of a child. The job's own labels are not copied: GitOps tools would claim the children."""
        labels = {
            "app.kubernetes.io/name": "tunewright",
            "app.kubernetes.io/instance": names.label_value(self.name),
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/managed-by": "tunewright",
            names.LABEL_JOB_NAME: names.label_value(self.name),
            names.LABEL_JOB_UID: self.uid,
            names.LABEL_COMPONENT: component,
        }
        if attempt is not None:
            labels[names.LABEL_ATTEMPT] = str(attempt)
        return labels

    def metadata(self, name: str, component: str, attempt: int | None = None) -> dict[str, Any]:
        """Metadata of a child named ``name``, owned by the job."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(component, attempt),
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }
