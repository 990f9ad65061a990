"""The operator dies, is upgraded, hands over: no pod of a running training notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.rows import covers
from tests.cluster_support.installation import RELEASE, SYSTEM, Installation
from tests.cluster_support.long_job import LongJob, counts
from tests.cluster_support.tuning import START_SECONDS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def undisturbed(long_job: LongJob) -> Iterator[LongJob]:
    """The long job while it runs; afterwards it is checked that it went on in the same pods."""
    before = long_job.running()
    pods = long_job.pods_as_they_are()
    yield long_job
    assert long_job.pods_as_they_are() == pods, "same pods, never restarted, never moved"
    long_job.advances()
    after = long_job.status()
    assert [each["number"] for each in after["attempts"]] == [each["number"] for each in before["attempts"]]
    assert counts(after) == counts(before)
    assert after["phase"] == "Running"


@covers("LoadingModel", "Training")
def test_a_killed_operator_is_replaced_and_adopts_what_runs(undisturbed: LongJob) -> None:
    installation = undisturbed.tuning.installation
    (pod,) = installation.operator_pods()
    restarts = pod["status"]["containerStatuses"][0]["restartCount"]
    installation.kill_operator()

    def came_back() -> bool:
        (found,) = installation.operator_pods()
        return bool(found["status"]["containerStatuses"][0]["restartCount"] > restarts)

    installation.wait(came_back, 60, "the operator's container to be started again")
    installation.wait_ready()


def test_an_upgrade_with_a_job_running(undisturbed: LongJob) -> None:
    installation = undisturbed.tuning.installation
    (before,) = installation.operator_pods()
    # Another default image and other annotations: what a release changes. A job keeps what it began with.
    trainer = {"image": {"repository": "tunewright/trainer", "tag": "9.9.9"}}
    try:
        installation.upgrade(podAnnotations={"release": "next"}, trainer=trainer)
        installation.wait_ready()
        (after,) = installation.operator_pods()
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        undisturbed.advances()
    finally:
        installation.upgrade()
        installation.wait_ready()


def test_a_standby_takes_over_gracefully(undisturbed: LongJob) -> None:
    installation = undisturbed.tuning.installation
    try:
        installation.upgrade(replicas=2)
        installation.wait_ready(pods=2)
        leader = installation.leader()
        assert leader is not None
        installation.api.delete("pods", SYSTEM, leader["metadata"]["name"])
        taken_over(installation, leader["metadata"]["name"])
        undisturbed.advances()
    finally:
        installation.upgrade()
        installation.wait_ready()


def taken_over(installation: Installation, former: str) -> None:
    """Wait until the other replica leads: it must not take the 15 s that a lost Lease would."""

    def another_leads() -> bool:
        lease = installation.api.find("leases", SYSTEM, RELEASE) or {"spec": {}}
        holder = lease["spec"].get("holderIdentity") or ""
        return bool(holder) and not holder.startswith(former)

    installation.wait(another_leads, START_SECONDS, "another replica to lead")
    lease = installation.api.find("leases", SYSTEM, RELEASE) or {"spec": {}}
    assert lease["spec"]["leaseTransitions"] >= 1
