"""What a run's figures depend on: the machine, and what else ran on it meanwhile."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil


def machine() -> dict[str, Any]:
    """Cores, memory, kernel; no name of the machine."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "cpu": model[0] if model else platform.machine(),
        "memoryGiB": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class CpuUse:
    """CPU seconds since some start: of all cores, and of this process with all its descendants."""

    idle: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> Self:
        """Take it before descendants are stopped: a grandchild that has ended counts no more."""
        times = psutil.cpu_times()
        idle = times.idle + times.iowait
        ended = os.times()
        own = ended.children_user + ended.children_system
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            used = process.cpu_times()
            own += used.user + used.system
        # guest time is part of user time
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        return cls(idle, busy, own)

    def since(self, before: CpuUse) -> dict[str, float]:
        """Percent of all cores that others took and that nobody took."""
        idle, busy, own = self.idle - before.idle, self.busy - before.busy, self.own - before.own
        whole = max(idle + busy, 1e-9)
        return {
            "othersCpuPercent": round(100 * max(0.0, busy - own) / whole),
            "idlePercent": round(100 * idle / whole),
        }
