"""Lines for the person who reads the pod's log: progress of anything that takes more than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_LINE_AFTER_SECONDS = 2.0
LINE_EVERY_SECONDS = 5.0


def say(text: str) -> None:
    """One line in the pod's log, at once."""
    print(text, flush=True)


class Ticker:
    """Says how far a long loop is: the first line after two seconds, then one every five.

    ``label`` is what is being done ("reading rows"); ``total`` is None where the end isn't known.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        unit: str = "rows",
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = say,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._clock, self._say = clock, say
        self._started = clock()
        self._next_line = self._started + FIRST_LINE_AFTER_SECONDS

    def at(self, done: int) -> None:
        """Report that ``done`` units are finished."""
        now = self._clock()
        if now < self._next_line:
            return
        self._next_line = now + LINE_EVERY_SECONDS
        of = f" of {self._total:,}" if self._total is not None else ""
        self._say(f"{self._label}: {done:,}{of} {self._unit} after {now - self._started:.0f} s")


def human_bytes(size_bytes: int) -> str:
    """``1536`` as ``1.5 KiB``."""
    size, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
