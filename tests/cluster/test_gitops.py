"""GitOps tools apply again and again: nothing differs, whatever the operator has written meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hack.devcluster.images import REPOSITORY_ROOT
from tests.cluster_support.tuning import Tuning, condition

pytestmark = pytest.mark.cluster

FOLDER = REPOSITORY_ROOT / "examples" / "gitops" / "jobs"


@pytest.fixture
def rendered(tuning: Tuning) -> str:
    """The example's folder as Kustomize renders it, in the test's namespace."""
    text = tuning.installation.cluster.kubectl("kustomize", str(FOLDER)).stdout
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for document in documents:
        document["metadata"]["namespace"] = tuning.namespace
    tuning.jobs += [each["metadata"]["name"] for each in documents if each["kind"] == "FineTuneJob"]
    return yaml.safe_dump_all(documents)


@pytest.mark.parametrize(
    "way", [(), ("--server-side", "--field-manager=argocd-controller")], ids=["client", "server"]
)
def test_applying_the_example_again_changes_nothing(
    tuning: Tuning, rendered: str, way: tuple[str, ...]
) -> None:
    cluster = tuning.installation.cluster
    cluster.kubectl("apply", *way, "-f", "-", stdin=rendered)
    (name,) = tuning.jobs

    def waits() -> bool:
        return condition(tuning.status(name), "Ready").get("reason") == "PersistentVolumeClaimNotFound"

    # By now the operator has added its finalizer and a status, and the API server its defaults.
    tuning.wait(name, waits, "the operator has taken the job up", 30)
    before = tuning.job(name)
    assert before is not None
    cluster.kubectl("diff", *way, "-f", "-", stdin=rendered)  # exits 1 where there is a difference
    said = cluster.kubectl("apply", *way, "-f", "-", stdin=rendered).stdout
    if not way:
        assert [line.rsplit(" ", 1)[1] for line in said.splitlines()] == ["unchanged", "unchanged"]
    after = tuning.job(name)
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"] == 1
    assert json.dumps(after["spec"]) == json.dumps(before["spec"])
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
