"""Remembers what trainers posted, per job, until a reconcile writes it to status. Memory only, bounded."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from tunewright.core.model import ProgressReport
from tunewright.core.outcome import timestamp
from tunewright_trainer.contract import ProgressPost

HISTORY_POINTS = 512

Point = tuple[int, float | None, float | None]


class ProgressBook:
    """Newest report and recent points of each job, by uid. A lost book costs at most one status update."""

    def __init__(self) -> None:
        self._reports: dict[str, ProgressReport] = {}
        self._points: dict[str, deque[Point]] = {}

    def record(self, job_uid: str, pod_uid: str, post: ProgressPost, now: datetime) -> ProgressReport:
        """Take ``post`` in; returns what is now known."""
        status = post.trainer_status
        ours = status.tunewright
        values: dict[str, Any] = ours.model_dump(exclude_none=True) if ours else {}
        before = self._reports.get(job_uid)
        same_pod = before is not None and before.pod_uid == pod_uid
        advanced = before is None or not same_pod or before.values.get("step") != values.get("step")
        report = ProgressReport(
            received_at=timestamp(now),
            advanced_at=timestamp(now) if advanced or before is None else before.advanced_at,
            pod_uid=pod_uid,
            percent=status.progress_percentage,
            remaining_seconds=status.estimated_remaining_seconds,
            values=values,
        )
        self._reports[job_uid] = report
        self._add_point(job_uid, values, before if same_pod else None)
        return report

    def report(self, job_uid: str) -> ProgressReport | None:
        """The newest report of a job, if it posted since this operator started."""
        return self._reports.get(job_uid)

    def points(self, job_uid: str) -> tuple[Point, ...]:
        """Recent (step, loss, validation loss) of a job, in the order in which they came."""
        return tuple(self._points.get(job_uid, ()))

    def forget(self, job_uid: str) -> None:
        """Drop what is known of a job that is gone."""
        self._reports.pop(job_uid, None)
        self._points.pop(job_uid, None)

    def _add_point(self, job_uid: str, values: dict[str, Any], before: ProgressReport | None) -> None:
        step, loss, evaluated = values.get("step"), values.get("loss"), values.get("eval_loss")
        if before is not None and evaluated == before.values.get("eval_loss"):
            evaluated = None
        if step is None or (loss is None and evaluated is None):
            return
        points = self._points.setdefault(job_uid, deque(maxlen=HISTORY_POINTS))
        while points and points[-1][0] >= step and (loss is not None or points[-1][0] > step):
            last = points.pop()
            evaluated = evaluated if evaluated is not None or last[0] != step else last[2]
        points.append((step, loss, evaluated))
