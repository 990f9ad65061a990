"""Runs a trainer command over and over, each time dying at another change of the file system.

A process of its own: it forks, so nothing in it may have started threads. The command is real, and so is
its death: the process ends at once (``os._exit``) just before its k-th change below the job's folder.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.trainer.jobs import JobFolder
from tunewright_trainer.contract import TrainerConfig

DIED = 99
_CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"}


def die_at(change: int, below: Path) -> None:
    """End this process just before its ``change``-th change of a file below ``below``."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES or (event == "open" and not _writes(arguments[2])):
            return
        # rmtree and others work relative to an open folder; what they touch is ours too.
        path = arguments[0]
        if isinstance(path, str | os.PathLike) and (str(path).startswith(str(below)) or "/" not in str(path)):
            seen += 1
            if seen == change:
                os._exit(DIED)

    sys.addaudithook(watch)


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; returns its exit code: 0, DIED, or 1 with a traceback."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 1)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sweep(
    command: Callable[[TrainerConfig, Any], object],
    config: TrainerConfig,
    origin: Path,
    work: Path,
    check: Callable[[JobFolder, TrainerConfig, bool], None],
) -> int:
    """Die at every change, then run to the end; ``check`` looks at both. Returns the number of deaths."""
    deaths = 0
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(origin, work, symlinks=True)
        job = JobFolder(work)

        def dying(job: JobFolder = job, change: int = deaths + 1) -> None:
            die_at(change, job.root)
            command(config, job.locations)

        code = in_child(dying)
        assert code in (0, DIED), f"failed before change {deaths + 1}"
        check(job, config, code == 0)
        if code == 0:
            return deaths
        deaths += 1
        assert in_child(lambda job=job: command(config, job.locations)) == 0, f"stuck after change {deaths}"  # type: ignore[misc]
        check(job, config, True)


if __name__ == "__main__":
    where, function, checks, origin, work = sys.argv[1:]
    # What commands import late, so that not every child pays for it.
    for name in ("transformers.models.auto.auto_mappings", "pyarrow.parquet"):
        importlib.import_module(name)
    command = getattr(importlib.import_module(where), function)
    check = getattr(importlib.import_module("tests.trainer.crash_checks"), checks)
    config = TrainerConfig.model_validate_json((Path(origin) / "config.json").read_bytes())
    print(sweep(command, config, Path(origin), Path(work), check))
