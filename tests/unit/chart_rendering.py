"""Renders the chart with helm, for the tests that look at what comes out."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hack import bootstrap

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tunewright"

EVERYTHING_ON = (
    "replicas=2",
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=prometheus",
    "image.pullSecrets={registry}",
    "priorityClassName=high",
    "podLabels.team=ml",
    "podAnnotations.note=x",
    "nodeSelector.pool=system",
    "tolerations[0].operator=Exists",
    "extraEnv[0].name=HTTPS_PROXY",
    "extraEnv[0].value=http://proxy:3128",
    "serviceAccount.annotations.a=b",
    "image.digest=sha256:" + "a" * 64,
)
EVERYTHING_OFF = (
    "crd.install=false",
    "progress.enabled=false",
    "rbac.create=false",
    "rbac.aggregate=false",
    "serviceAccount.create=false",
    "serviceAccount.name=mine",
)
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([bootstrap.helm_path(), *arguments], capture_output=True, text=True, check=False)


@cache
def render(values: tuple[str, ...] = (), release: str = "tunewright") -> tuple[Manifest, ...]:
    """The manifests of ``helm template`` in namespace ``tunewright-system``."""
    settings = [part for value in values for part in ("--set", value)]
    result = helm("template", release, str(CHART), "--namespace", "tunewright-system", *settings)
    assert result.returncode == 0, result.stderr
    return tuple(doc for doc in yaml.safe_load_all(result.stdout) if doc)


def find(manifests: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} named {name}"
    return found[0]


def operator_container(manifests: tuple[Manifest, ...]) -> Manifest:
    container: Manifest = find(manifests, "Deployment", "tunewright")["spec"]["template"]["spec"][
        "containers"
    ][0]
    return container


def environment(manifests: tuple[Manifest, ...]) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in operator_container(manifests)["env"]}
