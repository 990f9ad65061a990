"""Tells a rank that the kernel killed for memory from one that was killed by hand."""

from __future__ import annotations

from pathlib import Path

_EVENTS = Path("/sys/fs/cgroup/memory.events")


def out_of_memory_kills(events: Path = _EVENTS) -> int:
    """Processes of this container that the kernel has killed for memory so far (cgroup v2); 0 if unknown."""
    try:
        lines = events.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(counts.get("oom_kill", 0))
