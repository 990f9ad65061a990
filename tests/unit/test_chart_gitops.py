"""The GitOps examples build, follow generated names, and carry the same rules as the chart."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack import bootstrap
from tests.unit.chart_rendering import CHART, ROOT

EXAMPLES = ROOT / "examples" / "gitops"


def kustomize(folder: Path) -> dict[str, dict[str, Any]]:
    """Manifests by kind, as kubectl's own Kustomize builds them."""
    kubectl = bootstrap.cluster_binary_path().with_name("kubectl")
    result = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {doc["kind"]: doc for doc in yaml.safe_load_all(result.stdout)}


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A copy of the example's Kustomize folder, to change."""
    return Path(shutil.copytree(EXAMPLES / "jobs", tmp_path / "jobs"))


def test_the_job_follows_the_hash_of_its_data(jobs: Path) -> None:
    before = kustomize(jobs)
    job, data = before["FineTuneJob"], before["ConfigMap"]
    assert job["metadata"]["name"] == "support-bot-v1"
    assert job["spec"]["dataset"]["train"][0]["configMapRef"]["name"] == data["metadata"]["name"] != "faq"

    with (jobs / "train.jsonl").open("a") as file:
        file.write('{"messages": []}\n')
    after = kustomize(jobs)
    assert after["ConfigMap"]["metadata"]["name"] != data["metadata"]["name"]
    followed = after["FineTuneJob"]["spec"]["dataset"]["train"][0]["configMapRef"]["name"]
    assert followed == after["ConfigMap"]["metadata"]["name"]


def test_every_reference_of_a_job_is_followed(jobs: Path) -> None:
    """A job with each kind of reference: all of them end with the prefix that Kustomize gave the target."""
    job = yaml.safe_load((jobs / "job.yaml").read_text())
    ref = {"secretRef": {"name": "token"}}
    job["spec"]["model"] |= ref
    job["spec"]["dataset"] = {
        "train": [{"configMapRef": {"name": "faq"}}, ref],
        "validation": [{"configMapRef": {"name": "faq"}}, ref],
    }
    job["spec"]["podTemplate"] = {
        "serviceAccountName": "runner",
        "imagePullSecrets": [{"name": "token"}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "runner"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}}
    (jobs / "job.yaml").write_text(yaml.safe_dump_all([job, account, secret]))
    built = kustomize(jobs)
    rendered = yaml.safe_dump(built["FineTuneJob"]["spec"])
    names = {kind: built[kind]["metadata"]["name"] for kind in ("ConfigMap", "Secret", "ServiceAccount")}
    assert rendered.count(names["ConfigMap"]) == 2
    assert rendered.count(names["Secret"]) == 4
    assert rendered.count(names["ServiceAccount"]) == 1


def test_copies_are_those_of_the_chart() -> None:
    ours = (EXAMPLES / "jobs" / "tunewright-namereference.yaml").read_text()
    assert ours == (CHART / "files" / "kustomize-namereference.yaml").read_text()
    config = yaml.safe_load((EXAMPLES / "argocd" / "argocd-cm.yaml").read_text())
    rule = config["data"]["resource.customizations.health.tunewright.dev_FineTuneJob"]
    assert rule == (CHART / "files" / "argocd-health.lua").read_text()


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_yaml_with_kinds(path: Path) -> None:
    documents = [doc for doc in yaml.safe_load_all(path.read_text()) if doc]
    assert documents
    if path.name != "tunewright-namereference.yaml":
        assert all(doc["kind"] and doc["apiVersion"] for doc in documents)


def test_chart_version_in_the_examples_is_the_charts() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    application = next(yaml.safe_load_all((EXAMPLES / "argocd" / "applications.yaml").read_text()))
    assert application["spec"]["source"]["targetRevision"] == version
