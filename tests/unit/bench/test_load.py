"""Milestones: noted once, when their last part is there, per attempt."""

from __future__ import annotations

from typing import Any

import pytest

from bench.jobs import fine_tune_job
from bench.load import Timeline
from hack.devcluster.api import Api
from tunewright.core import names


@pytest.fixture
def timeline() -> Timeline:
    """Of a job with two worker pods; nothing is watched, tests tell it what was seen."""
    made = Timeline(Api("https://unused.invalid", None), "ns")  # type: ignore[arg-type]
    made.saw_job(job(), 0.0)
    return made


def job(phase: str = "", finalizers: tuple[str, ...] = ()) -> dict[str, Any]:
    manifest = fine_tune_job("ns", "job", pods=2)
    manifest["metadata"]["finalizers"] = list(finalizers)
    return manifest | ({"status": {"phase": phase}} if phase else {})


def child(component: str, condition: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    labels = {names.LABEL_JOB_NAME: "job", names.LABEL_COMPONENT: component}
    if attempt is not None:
        labels[names.LABEL_ATTEMPT] = str(attempt)
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": {"labels": labels}, "status": {"conditions": conditions}}


def pod(uid: str, phase: str = "Pending", component: str = "train", attempt: int = 1) -> dict[str, Any]:
    made = child(component, attempt=attempt)
    made["metadata"]["uid"] = uid
    return made | {"status": {"phase": phase}}


def test_all_pods_count_once_each(timeline: Timeline) -> None:
    timeline.saw_pod(pod("a"), 1.0)
    timeline.saw_pod(pod("a", "Running"), 2.0)
    assert "train_pods" not in timeline.moments["job"]
    timeline.saw_pod(pod("b"), 3.0)
    timeline.saw_pod(pod("b", "Running"), 4.0)
    assert timeline.moments["job"]["train_pods"] == 3.0


def test_pods_are_gone_when_the_last_has_ended_or_was_deleted(timeline: Timeline) -> None:
    timeline.saw_pod(pod("a", "Failed"), 1.0)
    timeline.saw_pod(pod("b", "Running"), 2.0)
    assert "train_gone" not in timeline.moments["job"]
    timeline.saw_pod(pod("b", "Running"), 3.0, deleted=True)
    assert timeline.moments["job"]["train_gone"] == 3.0


def test_attempts_are_told_apart(timeline: Timeline) -> None:
    timeline.saw_child(child("train", "Failed", attempt=1), 1.0)
    timeline.saw_child(child("train", attempt=2), 2.0)
    for uid in ("a", "b"):
        timeline.saw_pod(pod(uid, attempt=2), 3.0)
    moments = timeline.moments["job"]
    assert (moments["train_failed"], moments["train2_job"], moments["train2_pods"]) == (1.0, 2.0, 3.0)
    assert "train_pods" not in moments


def test_facts_are_there_with_the_prepare_pods_end_and_complete_with_the_jobs(timeline: Timeline) -> None:
    timeline.saw_child(child("prepare"), 1.0)
    timeline.saw_pod(pod("p", "Running", "prepare"), 2.0)
    timeline.saw_pod(pod("p", "Succeeded", "prepare"), 3.0)
    timeline.saw_child(child("prepare", "Complete"), 4.0)
    assert timeline.between("prepare_job", "facts") == [2000.0]
    assert timeline.between("facts", "prepare_complete") == [1000.0]


def test_a_job_is_released_when_the_finalizer_is_off(timeline: Timeline) -> None:
    timeline.saw_job(job("Succeeded", (names.FINALIZER,)), 5.0)
    assert timeline.reached("ended") == 1
    assert timeline.reached("released") == 0
    timeline.saw_job(job("Succeeded"), 6.0)
    assert timeline.span_seconds("released") == 6.0
