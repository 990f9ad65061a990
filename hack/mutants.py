"""Breaks the code on purpose, one patch of tests/mutations at a time, and demands that a test notices.

A patch begins with what it breaks, in words, and a line ``Tests: ARGUMENTS...`` with what pytest is to run:
the narrowest tests that must turn red. Each is applied to a copy of the tracked files, so the work tree is
never touched; several are tried at a time, each worker in a copy of its own.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_FAILED = 1
"""pytest's exit code for failed tests; any other one says nothing about the mutant."""
HUNG = -1
"""Stands for an exit code where there was none."""
DEADLINE_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """One deliberate fault."""

    patch: Path
    breaks: str
    tests: tuple[str, ...]
    """Arguments of pytest."""

    @classmethod
    def read(cls, patch: Path) -> Mutant:
        """Raises ValueError when the patch names no tests."""
        text = patch.read_text()
        found = re.search(r"^Tests: (.+)$", text, re.MULTILINE)
        if not found:
            raise ValueError(f"{patch.name} has no line 'Tests: ARGUMENTS...'")
        return cls(patch, text.partition("\n")[0], tuple(shlex.split(found[1])))


def copy_tracked(root: Path, target: Path) -> None:
    """The tracked files of ``root`` as they stand in the work tree."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    for name in filter(None, listing.stdout.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def run_tests(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and output over ``tests`` of the copy at ``root``."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    roots = os.pathsep.join(str(root / part) for part in (".", "operator", "trainer_image"))
    env = {**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=env, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return HUNG, f"still running after {DEADLINE_SECONDS} s"
    return done.returncode, done.stdout + done.stderr


def judge(mutant: Mutant, copy: Path) -> str | None:
    """None when the tests noticed; else what is wrong. The copy is as it was afterwards."""
    apply = ["git", "apply", "--whitespace=nowarn"]
    applied = subprocess.run(
        [*apply, str(mutant.patch)], cwd=copy, capture_output=True, text=True, check=False
    )
    if applied.returncode:
        return f"does not apply any more: {applied.stderr.strip()}"
    try:
        code, output = run_tests(copy, mutant.tests)
    finally:
        subprocess.run([*apply, "--reverse", str(mutant.patch)], cwd=copy, check=True)
    if code == TESTS_FAILED:
        return None
    if code == 0:
        return "survived: no test noticed"
    return f"broke the test run itself (exit {code}):\n{output[-1500:]}"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patches", nargs="*", type=Path, help="default: all of tests/mutations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args(arguments)
    patches = options.patches or sorted((root / "tests" / "mutations").glob("*.patch"))
    mutants = [Mutant.read(patch.resolve()) for patch in patches]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = Copies(root, Path(folder), options.jobs)
        red = [problem for problem in pool.map(copies.problem_of_tests, _test_runs(mutants)) if problem]
        if not mutants or red:
            print("The tests must be green before anything is broken.\n" + "\n".join(red))
            return 1
        survivors = sum(not noticed for noticed in pool.map(copies.report, mutants))
    print(f"{len(mutants) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


def _test_runs(mutants: Iterable[Mutant]) -> list[tuple[str, ...]]:
    return sorted({mutant.tests for mutant in mutants})


class Copies:
    """As many copies of the tracked files as there are workers; each is lent to one at a time."""

    def __init__(self, root: Path, folder: Path, count: int) -> None:
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(count):
            copy = folder / str(number)
            copy.mkdir()
            copy_tracked(root, copy)
            # git apply ignores patches to files outside a repository's folder; the copy is one of its own.
            subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
            self._free.put(copy)

    def problem_of_tests(self, tests: Sequence[str]) -> str:
        """Why ``tests`` would prove nothing: they are not green as it is. Empty when they are."""
        copy = self._free.get()
        try:
            code, output = run_tests(copy, tests)
        finally:
            self._free.put(copy)
        return "" if code == 0 else f"{shlex.join(tests)} (exit {code}):\n{output[-3000:]}"

    def report(self, mutant: Mutant) -> bool:
        """Judge ``mutant`` and print its line of the table; returns whether it was noticed."""
        copy = self._free.get()
        started = time.monotonic()
        try:
            problem = judge(mutant, copy)
        finally:
            self._free.put(copy)
        seconds = time.monotonic() - started
        word = "noticed" if problem is None else "WRONG"
        line = f"{word:8} {seconds:5.1f} s  {mutant.patch.stem:40} {mutant.breaks}"
        print(line if problem is None else f"{line}\n         {problem}", flush=True)
        return problem is None


if __name__ == "__main__":
    sys.exit(main())
