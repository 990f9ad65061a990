"""A FineTuneJob API of the tests' own on a real API server: the generated CRD under another group.

Another group, so that these tests may change and delete it while the chart's stands in the same cluster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster_fixtures import DevCluster
from tests.unit.api.cases import MINIMAL, manifest
from tunewright.api.crd import crd

GROUP = "api-test.tunewright.dev"
RESOURCE = f"finetunejobs.{GROUP}"


def definition_for_tests() -> dict[str, Any]:
    """The generated CRD under the tests' group."""
    definition = crd()
    definition["metadata"]["name"] = RESOURCE
    definition["spec"]["group"] = GROUP
    return definition


def install(cluster: DevCluster, definition: dict[str, Any]) -> None:
    """Applies the CRD and waits until the API server serves it."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(definition))
    cluster.wait_for(lambda: cluster.list(RESOURCE, "-A") is not None, 30, "the CRD to be served")


@dataclass(frozen=True)
class Api:
    """kubectl on the tests' FineTuneJobs in one namespace, its answers as people see them."""

    cluster: DevCluster
    namespace: str

    def job(self, spec: dict[str, Any] | None = None, name: str = "support-bot") -> dict[str, Any]:
        return manifest(MINIMAL if spec is None else spec, name) | {"apiVersion": f"{GROUP}/v1alpha1"}

    def create(self, job: dict[str, Any], *options: str) -> str:
        """Creates the job, strictly; the answer is empty when it is accepted."""
        return self._answer("create", "--validate=strict", "-f", "-", *options, stdin=json.dumps(job))

    def patch(self, changes: dict[str, Any], *options: str, name: str = "support-bot") -> str:
        """Merges ``changes`` into the job; the answer is empty when they are accepted."""
        return self._answer("patch", RESOURCE, name, "--type=merge", "-p", json.dumps(changes), *options)

    def get(self, name: str = "support-bot") -> dict[str, Any]:
        return self.cluster.get(RESOURCE, name, self.namespace)

    def print(self, *arguments: str) -> str:
        """What ``kubectl get`` prints."""
        return self.cluster.kubectl("get", RESOURCE, "-n", self.namespace, *arguments).stdout

    def _answer(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin, check=False)
        return "" if done.returncode == 0 else done.stderr.strip()
