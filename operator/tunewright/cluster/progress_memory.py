"""What trainers reported, kept in memory until status and metrics have it. Lost on restart, by design:
the next post brings newer figures."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewright.core.model import ProgressReport

LONGEST_HISTORY = 2048
MOST_JOBS = 5000

Point = tuple[int, float, float | None]
"""Step, loss, evaluation loss."""


@dataclass
class _Entry:
    report: ProgressReport
    history: deque[Point] = field(default_factory=lambda: deque(maxlen=LONGEST_HISTORY))


class ProgressMemory:
    """Newest report and points of the loss curve by the uid of the FineTuneJob. Bounded."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def record(self, job_uid: str, report: ProgressReport) -> None:
        """Keep ``report``; a report of another pod is a new attempt and replaces it like any other."""
        entry = self._entries.setdefault(job_uid, _Entry(report))
        entry.report = report
        self._entries.move_to_end(job_uid)
        step, loss = report.values.get("step"), report.values.get("loss")
        if isinstance(step, int) and isinstance(loss, int | float):
            while entry.history and entry.history[-1][0] >= step:  # resumed from a checkpoint before it
                entry.history.pop()
            entry.history.append((step, float(loss), report.values.get("eval_loss")))
        while len(self._entries) > MOST_JOBS:
            self._entries.popitem(last=False)

    def newest(self, job_uid: str) -> ProgressReport | None:
        """The last report of the job, if there is one."""
        entry = self._entries.get(job_uid)
        return entry.report if entry else None

    def points_after(self, job_uid: str, status: Mapping[str, Any]) -> tuple[Point, ...]:
        """Points that ``status.curve`` does not hold yet."""
        entry = self._entries.get(job_uid)
        if entry is None:
            return ()
        steps = (status.get("curve") or {}).get("steps") or [-1]
        return tuple(point for point in entry.history if point[0] > steps[-1])

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._entries.pop(job_uid, None)

    def __iter__(self) -> Any:
        return iter([(uid, entry.report) for uid, entry in self._entries.items()])
