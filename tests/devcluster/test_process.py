"""A container's processes end when they should, all of them, and say how."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

import pytest

from hack.devcluster.identity import Identity
from hack.devcluster.process import (
    ContainerProcess,
    Launch,
    StartError,
    kill_marked,
    marked_processes,
    termination_message,
)
from hack.devcluster.state import PidFile, StateDir, wait_until

CALLER = Identity(None, (), "")


def launch(tmp_path: Path, script: str, mark: str | None = None) -> Launch:
    return Launch(
        command=["python", "-u", "-c", script],
        environment={"PATH": str(Path(sys.executable).parent)},
        working_dir=str(tmp_path),
        log_file=tmp_path / "log",
        identity=CALLER,
        mark=mark or f"test/{uuid.uuid4()}",
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [("raise SystemExit(64)", 64), ("import os; os.kill(os.getpid(), 9)", 137), ("print('x')", 0)],
)
def test_exit_codes(tmp_path: Path, script: str, code: int) -> None:
    async def run() -> int:
        return await (await ContainerProcess.start(launch(tmp_path, script))).wait()

    assert asyncio.run(run()) == code


def test_only_what_is_given_is_in_the_environment(tmp_path: Path) -> None:
    async def run() -> int:
        script = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
        return await (await ContainerProcess.start(launch(tmp_path, script))).wait()

    assert asyncio.run(run()) == 0
    assert (tmp_path / "log").read_text().strip() == "['DEVCLUSTER_CONTAINER', 'PATH']"


def test_a_child_that_left_the_session_is_killed_with_its_container(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    spec = launch(tmp_path, script)

    async def run() -> None:
        await (await ContainerProcess.start(spec)).wait()

    asyncio.run(run())
    assert marked_processes(spec.mark) == []


def test_sigterm_reaches_the_main_process_alone(tmp_path: Path) -> None:
    child = "import signal, time; signal.signal(15, lambda *a: print('child')); print('up'); time.sleep(600)"
    script = (
        "import signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-u', '-c', {child!r}])\n"
        "signal.signal(15, lambda *a: (print('main'), sys.exit(143)))\n"
        "print('ready'); child.wait()\n"
    )
    log = tmp_path / "log"

    async def run() -> int:
        process = await ContainerProcess.start(launch(tmp_path, script))
        up = {"ready", "up"}
        await asyncio.to_thread(wait_until, lambda: up <= set(log.read_text().split()), 20, "the script", log)
        process.terminate()
        return await process.wait()

    assert asyncio.run(run()) == 143
    assert "main" in log.read_text()
    assert "child" not in log.read_text()


def test_kill_marked_spares_marks_that_only_begin_alike(tmp_path: Path) -> None:
    base = f"test/{uuid.uuid4()}"

    async def run() -> None:
        inner = await ContainerProcess.start(launch(tmp_path, "import time; time.sleep(600)", f"{base}/main"))
        other = await ContainerProcess.start(launch(tmp_path, "import time; time.sleep(600)", f"{base}2"))
        both = [f"{base}/main", f"{base}2"]
        await asyncio.to_thread(wait_until, lambda: all(map(marked_processes, both)), 20, "both processes")
        await kill_marked(base)
        assert await inner.wait() == 137
        assert len(marked_processes(f"{base}2")) == 1
        await other.kill()
        assert await other.wait() == 137

    asyncio.run(run())


def test_a_missing_program_is_a_start_error(tmp_path: Path) -> None:
    spec = Launch(["nosuch"], {"PATH": "/usr/bin"}, str(tmp_path), tmp_path / "log", CALLER, "test/none")
    with pytest.raises(StartError, match=r'"nosuch": executable file not found in \$PATH'):
        asyncio.run(ContainerProcess.start(spec))


def test_termination_message_is_the_last_4096_bytes(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"a" + b"b" * 4096)
    assert termination_message(file, tmp_path / "log", "File", 0) == "b" * 4096


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("FallbackToLogsOnError", 1, "".join(f"line {n}\n" for n in range(20, 100))),
        ("FallbackToLogsOnError", 0, ""),
        ("File", 1, ""),
    ],
)
def test_log_fallback(tmp_path: Path, policy: str, code: int, expected: str) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert termination_message(tmp_path / "none", log, policy, code) == expected


def test_a_reused_pid_is_not_taken_for_the_process(tmp_path: Path) -> None:
    file = PidFile(StateDir(tmp_path), "me")
    file.write(os.getpid())
    assert file.pid() == os.getpid()
    text = file.path.read_text()
    file.path.write_text(text.replace('"start": ', '"start": 1'))
    assert file.pid() is None
