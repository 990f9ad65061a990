"""Keeps the end of each rank's log in the workspace: a pod's own log goes with the pod."""

from __future__ import annotations

import os
from pathlib import Path

from tunewright_trainer.console import say
from tunewright_trainer.train.outcome import Outcome

TAIL_BYTES = 64 * 1024
_PARTS = ("stderr.log", "stdout.log")


def keep(scratch: Path, folder: Path) -> None:
    """Write ``rank-<r>.log`` for each rank of this pod: how it ended, then the tails of stderr and stdout.

    A volume that can't be written must not hide how training ended, so that is said and not raised.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for outcome in Outcome.read_all(scratch / "outcomes"):
            text = _render(outcome, scratch / "logs")
            (folder / f"rank-{outcome.rank}.log").write_bytes(text)
    except OSError as error:
        say(f"the ranks' logs could not be kept in {folder}: {error}")


def _render(outcome: Outcome, logs: Path) -> bytes:
    said = (
        outcome.answer.model_dump_json(exclude_none=True) if outcome.answer else "nothing; it died silently"
    )
    parts = [f"rank {outcome.rank} (pid {outcome.pid}) ended with {outcome.exit_code}: {said}\n".encode()]
    for name in _PARTS:
        for path in sorted(logs.glob(f"*/attempt_*/{outcome.local_rank}/{name}")):
            parts += [f"\n--- {name} ---\n".encode(), tail(path)]
    return b"".join(parts)


def tail(path: Path, limit_bytes: int = TAIL_BYTES) -> bytes:
    """The last ``limit_bytes`` of a file, from the start of a line."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit_bytes))
        content = file.read()
    return content if size <= limit_bytes else content.partition(b"\n")[2]
