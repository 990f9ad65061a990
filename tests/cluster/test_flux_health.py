"""Flux waits for what it should: the example's health expressions, in the API server's own CEL.

Flux evaluates them with the same library (cel-go), takes inProgress, failed and current in this order, and
none of them for in progress. Here a policy refuses each sample and tells what the expressions gave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.builders import NOW
from tests.cluster_fixtures import DevCluster
from tests.unit.chart_rendering import ROOT
from tunewright.core import names
from tunewright.core import status as statuses
from tunewright.core.lifecycle import TERMINAL, Phase
from tunewright.core.outcome import Outcome

GROUP = "flux-test.tunewright.dev"
SAMPLES = f"samples.{GROUP}"
ORDER = ("inProgress", "failed", "current")

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": SAMPLES},
    "spec": {
        "group": GROUP,
        "names": {"plural": "samples", "kind": "Sample"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


def expressions() -> dict[str, str]:
    """What the example tells Flux about FineTuneJobs."""
    documents = yaml.safe_load_all((ROOT / "examples" / "gitops" / "flux" / "jobs.yaml").read_text())
    checks = next(d["spec"]["healthCheckExprs"] for d in documents if d["kind"] == "Kustomization")
    (check,) = checks
    assert (check.pop("apiVersion"), check.pop("kind")) == (names.API_VERSION, names.KIND)
    assert set(check) == set(ORDER)
    return dict(check)


def policy() -> list[dict[str, Any]]:
    """Refuses every sample with ``flux: ``, and T or F for each expression. Flux binds an object's own fields
    where a policy has them under ``object``."""

    def told(expression: str) -> str:
        bound = re.sub(r"(?<![.\w])(status|metadata)(?=[.])", r"object.\1", expression)
        assert bound != expression
        return f"(({bound}) ? 'T' : 'F')"

    given = expressions()
    rules = {"apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["samples"]}
    message = "'flux: ' + " + " + ".join(told(given[name]) for name in ORDER)
    validation = {"expression": "false", "message": "could not evaluate", "messageExpression": message}
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "flux-health"}}
    return [
        api
        | {
            "kind": "ValidatingAdmissionPolicy",
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rules]},
                "validations": [validation],
            },
        },
        api
        | {
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": "flux-health", "validationActions": ["Deny"]},
        },
    ]


@pytest.fixture(scope="module")
def flux(dev_cluster: DevCluster) -> Iterator[DevCluster]:
    """A cluster with samples and the policy in force."""
    dev_cluster.apply(DEFINITION)
    dev_cluster.wait_for(lambda: dev_cluster.list(SAMPLES, "-A") is not None, 30, "samples to be served")
    dev_cluster.apply(*policy())
    dev_cluster.wait_for(lambda: answer(dev_cluster, {}) != "", 60, "the policy to be in force")
    yield dev_cluster
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        dev_cluster.kubectl("delete", kind, "flux-health")
    dev_cluster.kubectl("delete", "crd", SAMPLES)


def answer(cluster: DevCluster, sample: dict[str, Any]) -> str:
    """What refuses the creation of a sample; empty when nothing does. Its generation is 1."""
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Sample", "metadata": {"name": "sample"}, **sample}
    made = cluster.kubectl(
        "create", "-n", "default", "--dry-run=server", "-f", "-", stdin=json.dumps(body), check=False
    )
    return "" if made.returncode == 0 else made.stderr


def verdict(cluster: DevCluster, status: dict[str, Any] | None) -> str:
    """What Flux makes of a job with this status; Unknown when an expression fails: it goes on waiting."""
    said = answer(cluster, {} if status is None else {"status": status})
    found = re.search(r"flux: ([TF]{3})", said)
    if found is None:
        assert "could not evaluate" in said
        return "Unknown"
    results = zip(("InProgress", "Failed", "Current"), found[1], strict=True)
    return next((name for name, result in results if result == "T"), "InProgress")


def status_in(phase: Phase, generation: int = 1) -> dict[str, Any]:
    """The status that the operator writes in a phase."""
    return statuses.build({}, generation, Outcome(phase, str(phase), "So it is.", {}), NOW)


@pytest.mark.parametrize("phase", Phase)
def test_flux_waits_for_the_end_of_each_job(flux: DevCluster, phase: Phase) -> None:
    ends = {Phase.SUCCEEDED: "Current", Phase.FAILED: "Failed"}
    assert set(ends) == TERMINAL
    assert verdict(flux, status_in(phase)) == ends.get(phase, "InProgress")


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_what_was_said_of_an_older_spec_does_not_count(flux: DevCluster, phase: Phase) -> None:
    assert verdict(flux, status_in(phase, generation=0)) == "InProgress"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(None, "Unknown", id="not seen by the operator yet"),
        pytest.param({}, "InProgress", id="empty"),
        pytest.param({"observedGeneration": 1}, "InProgress", id="no conditions"),
        pytest.param(
            {"observedGeneration": 1, "conditions": [{"type": "Succeeded", "status": "False"}]},
            "InProgress",
            id="not succeeded",
        ),
    ],
)
def test_a_status_that_says_little_is_waited_for(
    flux: DevCluster, status: dict[str, Any] | None, expected: str
) -> None:
    assert verdict(flux, status) == expected
