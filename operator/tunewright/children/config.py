"""The ConfigMap that hands a TrainerConfig (and the progress endpoint's CA) to pods."""

from __future__ import annotations

from tunewright.children.owner import Owner
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright_trainer.contract import TrainerConfig


def config_map(
    owner: Owner,
    name: str,
    component: str,
    config: TrainerConfig,
    *,
    ca_pem: str = "",
    attempt: int | None = None,
) -> Manifest:
    """An immutable ConfigMap with ``config`` as JSON, and ``ca_pem`` beside it when there is one."""
    data = {names.CONFIG_KEY: config.model_dump_json(exclude_defaults=False, indent=1)}
    if ca_pem:
        data[names.CA_KEY] = ca_pem
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(name, component, attempt),
        "immutable": True,
        "data": data,
    }
