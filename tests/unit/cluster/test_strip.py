"""What the caches keep of an object, and which changes of it are none to look at."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tunewright.cluster import strip

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "uid": "u",
        "resourceVersion": "1",
        "finalizers": ["batch.kubernetes.io/job-tracking"],
    },
    "spec": {"nodeName": "n", "containers": [{"name": "trainer"}]},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "trainer", "state": {"running": {}}, "lastState": {}}],
    },
}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j", "uid": "u", "resourceVersion": "1"},
    "spec": {"completions": 2, "template": {"spec": {}}},
    "status": {"active": 2, "ready": 0, "conditions": []},
}


def changed(manifest: dict[str, Any], **parts: Any) -> dict[str, Any]:
    new = copy.deepcopy(manifest)
    new["metadata"]["resourceVersion"] = "2"
    for part, values in parts.items():
        new[part] = {**new[part], **values}
    return new


@pytest.mark.parametrize(
    "status",
    [
        {"ready": 2},
        {"active": 1, "uncountedTerminatedPods": {"succeeded": ["x"]}},
        {"succeeded": 2, "active": 0},
    ],
)
def test_counts_of_the_job_controller_are_no_change(status: dict[str, Any]) -> None:
    assert strip.unchanged(strip.job(JOB), strip.job(changed(JOB, status=status)))


def test_a_condition_of_a_job_is_a_change() -> None:
    complete = changed(JOB, status={"conditions": [{"type": "Complete", "status": "True"}]})
    assert not strip.unchanged(strip.job(JOB), strip.job(complete))
    assert strip.job(complete)["status"]["conditions"][0]["type"] == "Complete"


def test_a_pods_finalizer_going_is_no_change() -> None:
    without = changed(POD)
    del without["metadata"]["finalizers"]
    assert strip.unchanged(strip.pod(POD), strip.pod(without))


@pytest.mark.parametrize(
    "parts",
    [
        {"status": {"phase": "Failed"}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"spec": {"nodeName": "other"}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_what_decides_about_a_pod_is_a_change(parts: dict[str, Any]) -> None:
    assert not strip.unchanged(strip.pod(POD), strip.pod(changed(POD, **parts)))


def test_the_finalizers_of_a_fine_tune_job_are_kept() -> None:
    job = {"metadata": {"name": "j", "finalizers": ["tunewright.dev/cleanup"], "managedFields": [{}]}}
    assert strip.whole(job) == {"metadata": {"name": "j", "finalizers": ["tunewright.dev/cleanup"]}}
