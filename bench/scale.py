"""How large each scenario is: the full size whose figures are published, and a quick one for development."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """Sizes and durations; the defaults are the full run's."""

    name: str = "full"
    nodes: int = 25
    idle_seconds: float = 60.0
    write_jobs: int = 2
    """Undisturbed jobs of each number of pods."""
    write_pods: tuple[int, ...] = (1, 8)
    rate_jobs: int = 60
    """At one a second."""
    rate_pods: int = 8
    burst_jobs: int = 500
    burst_pods: int = 4
    wide_pods: int = 256
    restart_jobs: int = 10
    restart_pods: int = 4
    waiting_jobs: int = 50
    suspended_jobs: int = 50
    finished_jobs: int = 50
    running_jobs: int = 10
    settle_seconds: float = 40.0
    """Longer than the operator waits before it rewrites a status for mere wording."""
    steady_seconds: float = 60.0
    progress_status_seconds: float = 30.0
    """How often the operator may write a running job's progress: its default."""
    cold_seconds: float = 20.0
    crash: bool = True
    """Measure a crash too: the standby then waits until the Lease has expired."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the operator beside the chart's."""


FULL = Scale()
QUICK = Scale(
    name="quick",
    nodes=4,
    idle_seconds=3.0,
    write_jobs=1,
    rate_jobs=5,
    burst_jobs=15,
    wide_pods=32,
    restart_jobs=1,
    waiting_jobs=3,
    suspended_jobs=3,
    finished_jobs=3,
    running_jobs=2,
    settle_seconds=4.0,
    steady_seconds=12.0,
    progress_status_seconds=5.0,
    cold_seconds=5.0,
    crash=False,
    settings={"TUNEWRIGHT_PROGRESS_STATUS_SECONDS": "5", "TUNEWRIGHT_STATUS_SECONDS": "2"},
)
