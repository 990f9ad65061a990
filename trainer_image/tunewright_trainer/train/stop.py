"""Remembers a SIGTERM until the training loop can act on it. Imports nothing heavy: it has to be early."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Remembers that this process got SIGTERM. The handler does nothing else: the loop looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> StopRequest:
        signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

    @property
    def made(self) -> bool:
        return self._event.is_set()


class AlreadyTrained(Exception):
    """Raised on all ranks that resumed from the last step: the Trainer would make one step too many."""


class GangStopped(Exception):
    """Raised on all ranks when they agreed to stop before a step was made."""
