"""Breaks the code on purpose, one patch of tests/mutations at a time, and demands that a test notices.

A patch begins with what it breaks, in words, and a line ``Tests: PATH...`` that names the tests which must
turn red. Each is applied to a copy of the tracked files, so the work tree is never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_FAILED = 1
"""pytest's exit code for failed tests; any other one says nothing about the mutant."""
DEADLINE_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """One deliberate fault."""

    patch: Path
    tests: tuple[str, ...]

    @classmethod
    def read(cls, patch: Path) -> Mutant:
        """Raises ValueError when the patch names no tests."""
        found = re.search(r"^Tests: (.+)$", patch.read_text(), re.MULTILINE)
        if not found:
            raise ValueError(f"{patch.name} has no line 'Tests: PATH...'")
        return cls(patch, tuple(found[1].split()))


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
    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
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
    options = parser.parse_args(arguments)
    patches = options.patches or sorted((root / "tests" / "mutations").glob("*.patch"))
    mutants = [Mutant.read(patch.resolve()) for patch in patches]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_tracked(root, copy)
        # git apply ignores patches to files outside a repository's folder; the copy is one of its own.
        subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, output = run_tests(copy, tests)
        if not mutants or code != 0:
            print(f"The tests must be green before anything is broken (exit {code}):\n{output[-3000:]}")
            return 1
        survivors = sum(not _report(mutant, copy) for mutant in mutants)
    print(f"{len(mutants) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


def _report(mutant: Mutant, copy: Path) -> bool:
    started = time.monotonic()
    problem = judge(mutant, copy)
    seconds = time.monotonic() - started
    print(f"{'noticed' if problem is None else 'WRONG':8} {seconds:5.1f} s  {mutant.patch.stem}", flush=True)
    if problem is not None:
        print(f"         {problem}", flush=True)
    return problem is None


if __name__ == "__main__":
    sys.exit(main())
