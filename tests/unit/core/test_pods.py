"""Why pods wait, and how long the end of a Job waits for theirs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW, at, make_batch_job, make_job, make_pod, make_world
from tunewright.core.observe import ObservedJob, observe
from tunewright.core.pods import Wait, settling_seconds, waiting


def job_with(*pods: dict[str, Any], **rest: Any) -> ObservedJob:
    own = make_batch_job(**rest)
    children = [make_pod(own, index, **pod) for index, pod in enumerate(pods)]
    return observe(make_world(make_job(), own, *children), NOW, 60).workers[1]


@pytest.mark.parametrize(
    ("pods", "ended", "seconds"),
    [
        ([], 0, 5.0),
        ([{"exit_code": 83}], -2, 3.0),
        ([{"exit_code": 83}], -5, 0.0),
        ([{"exit_code": 83}, {}], -5, 55.0),
        ([{}], -60, 0.0),
        ([], +30, 0.0),
    ],
    ids=[
        "no pod yet",
        "ended pods",
        "long enough",
        "a pod shown as running",
        "not for ever",
        "clock put back",
    ],
)
def test_settling_seconds(pods: list[dict[str, Any]], ended: float, seconds: float) -> None:
    assert settling_seconds(job_with(*pods, state="Failed", ended=at(ended)), NOW) == seconds


def test_a_running_job_has_nothing_to_settle() -> None:
    assert settling_seconds(job_with({}), NOW) == 0.0


@pytest.mark.parametrize(
    ("pods", "wait"),
    [
        ([{}, {}], None),
        ([{}, {"exit_code": 0}], None),
        ([{}], Wait("", "1 of 2 pods have a node.", nodes=True)),
        ([{}, {"phase": "Pending"}], Wait("", "1 of 2 pods run.")),
    ],
    ids=["all run", "one is done", "one is missing", "one starts"],
)
def test_waiting(pods: list[dict[str, Any]], wait: Wait | None) -> None:
    assert waiting(job_with(*pods), 2) == wait


def test_a_pod_without_a_node_tells_before_a_missing_image() -> None:
    found = waiting(job_with({"waiting": ("ErrImagePull", "no")}, {"unschedulable": "0/2 nodes."}), 2)
    assert found is not None
    assert (found.reason, found.nodes) == ("Unschedulable", True)
