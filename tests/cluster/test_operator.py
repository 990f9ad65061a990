"""The operator's process: it holds its jobs, is quiet when nothing happens, hands over, and ends cleanly."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hack.devcluster.cluster import DevCluster
from hack.devcluster.images import REPOSITORY_ROOT
from tests.cluster.operator_process import OperatorProcess
from tunewright.core import names

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def crd(dev_cluster: DevCluster) -> None:
    text = (REPOSITORY_ROOT / "crds/finetunejobs.yaml").read_text()
    dev_cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    dev_cluster.wait_for(
        lambda: dev_cluster.list("finetunejobs", "-A") is not None, 30, "the CRD to be served"
    )


def waiting_job(name: str = "tune") -> dict[str, Any]:
    """A job that waits for a claim."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "pvc://nowhere/model"},
            "dataset": {"train": [{"source": "pvc://nowhere/train.jsonl"}]},
            "output": {"destination": "pvc://nowhere/out"},
            "compute": {"gpusPerNode": 0},
        },
    }


def writes(cluster: DevCluster, namespace: str) -> list[str]:
    """What the operator wrote in ``namespace`` by the audit log; Leases, events and the certificate apart."""
    found = []
    for line in cluster.audit_log.read_text().splitlines():
        entry = json.loads(line)
        reference = entry.get("objectRef", {})
        if (
            reference.get("namespace") == namespace
            and re.match("tunewright/|kopf/", entry.get("userAgent", ""))
            and entry["verb"] in ("create", "update", "patch", "delete")
            and reference["resource"] not in ("leases", "events", "secrets")
            and entry["stage"] == "ResponseComplete"
        ):
            found.append(f"{entry['verb']} {reference['resource']}/{reference.get('subresource', '')}")
    return found


def is_waiting(cluster: DevCluster, namespace: str) -> bool:
    job = cluster.get("finetunejob", "tune", namespace)
    return "nowhere" in (job.get("status") or {}).get("message", "")


def test_a_waiting_job_is_held_and_left_in_peace(
    dev_cluster: DevCluster, namespace: str, tmp_path: Path
) -> None:
    quick = {"TUNEWRIGHT_REFERENCE_POLL_SECONDS": "0.2"}
    with OperatorProcess(dev_cluster, namespace, tmp_path / "log", **quick) as operator:
        operator.wait_leading()
        dev_cluster.apply(waiting_job(), namespace=namespace)
        operator.wait(lambda: is_waiting(dev_cluster, namespace), "the job waits for its claim")
        job = dev_cluster.get("finetunejob", "tune", namespace)
        assert job["metadata"]["finalizers"] == [names.FINALIZER]
        assert not any("kopf" in key for key in job["metadata"].get("annotations", {}))
        assert writes(dev_cluster, namespace) == ["patch finetunejobs/", "patch finetunejobs/status"]

        before = operator.metric("tunewright_reconcile_seconds_count")
        operator.wait(
            lambda: operator.metric("tunewright_reconcile_seconds_count") >= before + 20, "20 more reconciles"
        )
        assert len(writes(dev_cluster, namespace)) == 2, "looking again writes nothing"

        dev_cluster.kubectl("delete", "finetunejob", "tune", "--namespace", namespace, "--timeout=20s")
        assert operator.metric("tunewright_jobs") == 0
        assert operator.stop() == 0
    assert "Traceback" not in operator.log()
    assert "Unclosed" not in operator.log()


def test_a_standby_takes_over_at_once_when_the_leader_ends(
    dev_cluster: DevCluster, namespace: str, tmp_path: Path
) -> None:
    with (
        OperatorProcess(dev_cluster, namespace, tmp_path / "one") as one,
        OperatorProcess(dev_cluster, namespace, tmp_path / "two") as two,
    ):
        one.wait(lambda: one.fetch("/readyz")[0] == two.fetch("/readyz")[0] == 200, "both are ready")
        one.wait(lambda: sum(o.metric("tunewright_leader") for o in (one, two)) == 1, "one leads")
        leads = [operator.metric("tunewright_leader") for operator in (one, two)]
        leader, standby = (one, two) if leads[0] else (two, one)
        assert leader.stop() == 0
        standby.wait(lambda: standby.metric("tunewright_leader") == 1, "the standby leads", seconds=8)
        dev_cluster.apply(waiting_job(), namespace=namespace)
        standby.wait(lambda: is_waiting(dev_cluster, namespace), "the new leader works")
        dev_cluster.kubectl("delete", "finetunejob", "tune", "--namespace", namespace, "--timeout=20s")
        assert standby.stop() == 0


def test_a_standby_hands_progress_on_to_the_leader(
    dev_cluster: DevCluster, namespace: str, tmp_path: Path
) -> None:
    """The leader alone asks the API server about tokens, so what it says of a bad one shows who answered."""
    with OperatorProcess(dev_cluster, namespace, tmp_path / "one") as leader:
        leader.wait_leading()
        with OperatorProcess(dev_cluster, namespace, tmp_path / "two") as standby:
            secret = dev_cluster.get("secret", "tunewright-progress-tls", namespace)
            ca_pem = base64.b64decode(secret["data"]["ca.crt"]).decode()
            standby.wait(lambda: "caches are filled" in standby.log(), "the standby waits for the Lease")
            standby.wait(
                lambda: standby.post_progress("nonsense", ca_pem)[0] == 401, "it knows where the leader is"
            )
            assert "the token is not valid for audience" in standby.post_progress("nonsense", ca_pem)[1]
            assert standby.metric("tunewright_leader") == 0
            assert leader.metric("tunewright_progress_posts_total") >= 2
        lease = dev_cluster.get("lease", "tunewright", namespace)
        assert names.ANNOTATION_PROGRESS_ADDRESS in lease["metadata"]["annotations"]
        assert leader.stop() == 0
        lease = dev_cluster.get("lease", "tunewright", namespace)
        assert names.ANNOTATION_PROGRESS_ADDRESS not in lease["metadata"].get("annotations", {})


def test_a_killed_leader_is_replaced_when_its_lease_ends(
    dev_cluster: DevCluster, namespace: str, tmp_path: Path
) -> None:
    with OperatorProcess(dev_cluster, namespace, tmp_path / "one") as one:
        one.wait_leading()
        dev_cluster.apply(waiting_job(), namespace=namespace)
        one.wait(lambda: is_waiting(dev_cluster, namespace), "the job waits")
        one.process.kill()
        one.process.wait(timeout=10)
        with OperatorProcess(dev_cluster, namespace, tmp_path / "two") as two:
            two.wait(lambda: two.metric("tunewright_leader") == 1, "the successor leads", seconds=25)
            dev_cluster.kubectl("delete", "finetunejob", "tune", "--namespace", namespace, "--timeout=20s")
            assert two.stop() == 0


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param(
            {"TUNEWRIGHT_WORKERS": "many"}, "TUNEWRIGHT_WORKERS='many': write a whole", id="workers"
        ),
        pytest.param({"KUBECONFIG": "/nowhere"}, "cannot use the kubeconfig /nowhere", id="kubeconfig"),
    ],
)
def test_what_is_set_wrong_is_said_in_one_line(
    dev_cluster: DevCluster, namespace: str, tmp_path: Path, environ: dict[str, str], words: str
) -> None:
    with OperatorProcess(dev_cluster, namespace, tmp_path / "log", **environ) as operator:
        assert operator.process.wait(timeout=30) == 64
    (line,) = operator.log().splitlines()
    assert words in line
