"""The chart's environment is what the operator reads: every variable known, every value usable."""

from __future__ import annotations

import re

import pytest

from tests.unit.chart_rendering import EVERYTHING_ON, ROOT, find, operator_container, render
from tunewright.settings import Address, Settings, load_settings

FIELDS = {
    "metadata.name": "tunewright-7d9-x2x",
    "metadata.namespace": "tunewright-system",
    "status.podIP": "10.1.2.3",
}


def container_environment(values: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment as kubelet would make it: fieldRefs looked up, ``$(NAME)`` expanded in order."""
    env: dict[str, str] = {}
    for entry in operator_container(render(values))["env"]:
        if "valueFrom" in entry:
            env[entry["name"]] = FIELDS[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            env[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: env[match[1]], str(entry["value"]))
    return env


def settings(values: tuple[str, ...] = ()) -> Settings:
    return load_settings(container_environment(values))


def test_defaults_arrive() -> None:
    loaded = settings()
    assert loaded.namespace == "tunewright-system"
    assert loaded.http == Address("10.1.2.3", 8080)
    assert loaded.progress == Address("10.1.2.3", 8443)
    assert loaded.core.progress_url == "https://tunewright-progress.tunewright-system.svc:8443"
    assert loaded.core.trainer_image == "tunewright/trainer:0.1.0"
    assert loaded.leader_elect
    assert loaded.log_format == "json"
    assert loaded.check_secrets
    assert loaded.pod_name == FIELDS["metadata.name"]


def test_values_arrive() -> None:
    loaded = settings(("workers=3", "log.level=debug", "rbac.checkSecrets=false", "progress.enabled=false"))
    assert (loaded.workers, loaded.log_level, loaded.check_secrets) == (3, "debug", False)
    assert loaded.progress is None
    assert loaded.core.progress_url is None


@pytest.mark.parametrize("values", [(), EVERYTHING_ON], ids=["defaults", "on"])
def test_every_variable_is_one_that_the_operator_reads(values: tuple[str, ...]) -> None:
    sources = (ROOT / "operator" / "tunewright").rglob("*.py")
    read = {name for source in sources for name in re.findall(r"TUNEWRIGHT_[A-Z_]+", source.read_text())}
    given = {name for name in container_environment(values) if name.startswith("TUNEWRIGHT_")}
    assert given
    assert given <= read


def test_lease_and_secret_are_those_that_the_role_names() -> None:
    loaded = settings()
    rules = find(render(), "Role", "tunewright")["rules"]
    named = {(rule["resources"][0], name) for rule in rules for name in rule.get("resourceNames", [])}
    assert named == {("leases", loaded.lease_name), ("secrets", loaded.progress_secret)}
