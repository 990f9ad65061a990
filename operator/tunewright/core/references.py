"""Objects that a job names and that someone else makes: secrets, claims, ConfigMaps. They may come later."""

from __future__ import annotations

from tunewright.api.spec import FineTuneJobSpec
from tunewright.children.storage import claim_of
from tunewright.core.translate import sources

KINDS = {"secret": "Secret", "persistentvolumeclaim": "PersistentVolumeClaim", "configmap": "ConfigMap"}


def references(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """``kind/name`` of each object that pods of this job mount, sorted, without repeats."""
    found = {f"secret/{source.secret}" for source in sources(spec) if source.secret}
    found |= {f"persistentvolumeclaim/{claim}" for source in sources(spec) if (claim := claim_of(source.uri))}
    entries = (*spec.dataset.train, *(spec.dataset.validation or ()))
    found |= {f"configmap/{entry.config_map_ref.name}" for entry in entries if entry.config_map_ref}
    return tuple(sorted(found))
