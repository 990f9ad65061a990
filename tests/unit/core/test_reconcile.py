"""One pass over one job: what is looked at, what is carried out, and what is said when the code trips."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import NAME, NAMESPACE, NOW, SETTINGS, make_job, make_world
from tunewright.core.model import Manifest, Plan, World
from tunewright.core.plan import plan
from tunewright.core.reconcile import Reconciler
from tunewright.core.settings import OperatorSettings


class OneJob:
    """A cluster in memory that holds one job and remembers the plans that were carried out."""

    def __init__(self, world: World) -> None:
        self.content = world
        self.executed: list[tuple[Manifest, Plan]] = []

    def job(self, namespace: str, name: str) -> Manifest | None:
        return self.content.job if (namespace, name) == (NAMESPACE, NAME) else None

    async def world(self, job: Manifest) -> World:
        assert job is self.content.job
        return self.content

    async def execute(self, job: Manifest, plan: Plan) -> None:
        self.executed.append((job, plan))
        if plan.status is not None:
            self.content = replace(self.content, job={**job, "status": dict(plan.status)})


def reconcile(
    cluster: OneJob, name: str = NAME, settings: Callable[[], OperatorSettings] = lambda: SETTINGS
) -> float | None:
    return asyncio.run(Reconciler(cluster, settings, lambda: NOW).reconcile(NAMESPACE, name))


def unreadable() -> OneJob:
    """A world that no reader of it expects: a batch Job without a uid."""
    return OneJob(replace(make_world(make_job()), jobs=({"kind": "Job", "metadata": {"name": "odd"}},)))


def test_a_pass_carries_out_the_plan_and_tells_when_to_look_again() -> None:
    missing = replace(make_world(make_job()), references={"secret/hf-token": False})
    expected = plan(missing, SETTINGS, NOW)
    assert expected.requeue_after_seconds is not None
    cluster = OneJob(missing)
    assert reconcile(cluster) == expected.requeue_after_seconds
    assert cluster.executed == [(missing.job, expected)]


def test_the_present_settings_are_used() -> None:
    cluster = OneJob(make_world(make_job()))
    reconcile(cluster, settings=lambda: replace(SETTINGS, trainer_image="renewed"))
    made = [child for child in cluster.executed[0][1].create if child["kind"] == "Job"]
    assert [child["spec"]["template"]["spec"]["containers"][0]["image"] for child in made] == ["renewed"]


def test_a_job_that_is_gone_needs_nothing() -> None:
    cluster = OneJob(make_world(make_job()))
    assert reconcile(cluster, "gone") is None
    assert cluster.executed == []


def test_a_job_that_the_code_trips_over_says_so_once_and_is_tried_again() -> None:
    cluster = unreadable()
    for _ in range(2):
        with pytest.raises(KeyError, match="uid"):
            reconcile(cluster)
    (only,) = cluster.executed
    assert (only[1].create, only[1].delete) == ((), ())
    status = cluster.content.job["status"]
    assert "OperatorError" in {condition["reason"] for condition in status["conditions"]}
    assert "The operator met an error of its own on this job (KeyError: 'uid')" in status["message"]
