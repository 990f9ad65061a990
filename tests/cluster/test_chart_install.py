"""The chart on a real API server: it installs, runs under its own rights, and leaves what it should."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import yaml

from hack.bootstrap import helm_path
from hack.devcluster.cluster import DevCluster
from hack.devcluster.images import REPOSITORY_ROOT

pytestmark = pytest.mark.cluster

CHART = REPOSITORY_ROOT / "charts" / "tunewright"
CRD = "finetunejobs.tunewright.dev"
NAMESPACE = "chart-install"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:tunewright"


def helm(cluster: DevCluster, *arguments: str) -> str:
    command = [str(helm_path()), *arguments, "--namespace", NAMESPACE]
    done = subprocess.run(
        command, env=dict(cluster.env), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(dev_cluster: DevCluster) -> Iterator[DevCluster]:
    """The chart with its defaults, in a namespace that admits restricted pods only."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    dev_cluster.apply(namespace)
    # Other tests of this cluster may have applied the CRD by hand.
    helm(dev_cluster, "install", "tunewright", str(CHART), "--take-ownership")
    yield dev_cluster
    if "tunewright" in helm(dev_cluster, "list", "--short"):
        helm(dev_cluster, "uninstall", "tunewright", "--wait")
    dev_cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def can_i(cluster: DevCluster, verb: str, resource: str, *more: str, user: str = ACCOUNT) -> bool:
    # kubectl exits 1 for "no".
    command = ["auth", "can-i", verb, resource, "--as", user, *more]
    done = cluster.kubectl(*command, check=False)
    return done.stdout.strip() == "yes"


def test_operator_becomes_ready_under_the_charts_rights(installed: DevCluster) -> None:
    rollout = ("rollout", "status", "deployment/tunewright", "-n", NAMESPACE, "--timeout=120s")
    installed.kubectl(*rollout, timeout=130)
    lease = installed.get("lease", "tunewright", NAMESPACE)
    pods = installed.list("pods", "-n", NAMESPACE)
    assert lease["spec"]["holderIdentity"].startswith(pods[0]["metadata"]["name"])


@pytest.mark.parametrize(
    ("verb", "resource", "more", "allowed"),
    [
        ("patch", "finetunejobs", ("--subresource=status", "-A"), True),
        ("create", "jobs.batch", ("-A",), True),
        ("get", "secrets", ("-n", "default"), True),
        ("list", "secrets", ("-n", "default"), False),
        ("list", "secrets", ("-n", NAMESPACE), False),
        ("update", "secrets/tunewright-progress-tls", ("-n", NAMESPACE), True),
        ("update", "secrets/other", ("-n", NAMESPACE), False),
        ("create", "secrets", ("-n", "default"), False),
        ("update", "leases.coordination.k8s.io/tunewright", ("-n", "default"), False),
        ("create", "pods", ("-A",), False),
        ("update", "finetunejobs", ("-A",), False),
        ("create", "serviceaccounts/token", ("-A",), False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_operator_may_what_it_needs_and_no_more(
    installed: DevCluster, verb: str, resource: str, more: tuple[str, ...], allowed: bool
) -> None:
    assert can_i(installed, verb, resource, *more) is allowed


def test_people_with_view_and_edit_may_see_and_make_jobs(installed: DevCluster) -> None:
    for role in ("view", "edit"):
        arguments = ("--clusterrole", role, "--user", f"{role}er", "-n", "default")
        installed.kubectl("create", "rolebinding", f"chart-{role}", *arguments)
    more = ("-n", "default")
    installed.wait_for(
        lambda: can_i(installed, "list", "finetunejobs", *more, user="viewer"),
        30,
        "the view role to aggregate",
    )
    assert not can_i(installed, "create", "finetunejobs", *more, user="viewer")
    installed.wait_for(
        lambda: can_i(installed, "create", "finetunejobs", *more, user="editer"),
        30,
        "the edit role to aggregate",
    )
    assert not can_i(installed, "patch", "finetunejobs", "--subresource=status", *more, user="editer")


def test_applying_the_rendered_chart_twice_changes_nothing(installed: DevCluster) -> None:
    """As a GitOps tool does it: server-side apply of the rendered manifests, then again."""
    rendered = helm(
        installed, "template", "gitops", str(CHART), "--set", "crd.install=false", "--set", "replicas=0"
    )
    documents = [doc for doc in yaml.safe_load_all(rendered) if doc]
    text = yaml.safe_dump_all(documents)
    first = installed.kubectl("apply", "--server-side", "-f", "-", "-o", "json", stdin=text).stdout
    second = installed.kubectl("apply", "--server-side", "-f", "-", "-o", "json", stdin=text).stdout
    versions = [
        {
            (item["kind"], item["metadata"]["name"]): item["metadata"].get("generation")
            or item["metadata"]["resourceVersion"]
            for item in yaml.safe_load(output)["items"]
        }
        for output in (first, second)
    ]
    assert len(versions[0]) == len(documents)
    assert versions[0] == versions[1]
    # Exit 1 would be a difference.
    installed.kubectl("diff", "--server-side", "-f", "-", stdin=text)
    installed.kubectl("delete", "--wait=false", "-f", "-", stdin=text)


def test_uninstall_keeps_the_crd_and_the_jobs(installed: DevCluster) -> None:
    job = yaml.safe_load((REPOSITORY_ROOT / "examples" / "minimal.yaml").read_text())
    job["metadata"]["name"] = "survivor"
    installed.apply(job, namespace="default")
    helm(installed, "uninstall", "tunewright", "--wait")
    assert installed.get("crd", CRD)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    survivor = installed.get("finetunejob", "survivor", "default")
    assert survivor["spec"]["model"] == job["spec"]["model"]
    # No operator is left to take its finalizer away.
    installed.kubectl(
        *("patch", "finetunejob", "survivor", "-n", "default", "--type=merge"),
        *("-p", '{"metadata": {"finalizers": null}}'),
    )
    installed.kubectl("delete", "finetunejob", "survivor", "-n", "default")
