"""The mutant runner tells a noticed fault from one that no test sees, and leaves the work tree alone."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from hack import mutants

MODULE = "def double(x: int) -> int:\n    return 2 * x\n"
TEST = "from code_under_test import double\n\n\ndef test_double() -> None:\n    assert double(0) == 0\n"


def patch(name: str, new: str, tests: str = "Tests: test_it.py") -> str:
    return (
        f"{name}\n{tests}\n--- a/code_under_test.py\n+++ b/code_under_test.py\n"
        f"@@ -1,2 +1,2 @@\n def double(x: int) -> int:\n-    return 2 * x\n+    {new}\n"
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "tests" / "mutations"
    folder.mkdir(parents=True)
    (tmp_path / "code_under_test.py").write_text(MODULE)
    (tmp_path / "test_it.py").write_text(TEST)
    (folder / "adds.patch").write_text(patch("Adds one.", "return 2 * x + 1"))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def add(repository: Path, name: str, text: str) -> None:
    (repository / "tests" / "mutations" / name).write_text(text)


def test_a_noticed_fault_is_success(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main([], repository) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out
    assert (repository / "code_under_test.py").read_text() == MODULE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(patch("Triples.", "return 3 * x"), "survived", id="survivor"),
        pytest.param(patch("Breaks the syntax.", "return return"), "broke the test run", id="syntax"),
        pytest.param(patch("Old.", "x").replace("2 * x", "5 * x"), "does not apply", id="stale"),
    ],
)
def test_what_proves_nothing_is_failure(
    repository: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    add(repository, "other.patch", text)
    assert mutants.main([], repository) == 1
    output = capsys.readouterr().out
    assert complaint in output
    assert "1 passed, 1 failed" in output


def test_red_tests_prove_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "test_it.py").write_text(TEST.replace("== 0", "== 1"))
    assert mutants.main([], repository) == 1
    assert "must be green before" in capsys.readouterr().out


def test_a_patch_without_tests_is_refused(repository: Path) -> None:
    add(repository, "other.patch", patch("Nameless.", "return x", tests=""))
    with pytest.raises(ValueError, match=r"other\.patch has no line"):
        mutants.main([], repository)


# --- the mutants that are there -----------------------------------------------------------------------------

CORE = mutants.ROOT / "operator" / "tunewright" / "core"
FEWEST_OF_A_CORE_MODULE = 3
NOTHING_TO_BREAK = {
    "__init__.py": "empty",
    "stages/__init__.py": "empty",
    "settings.py": "values alone; tunewright/settings.py reads them",
    "model.py": "values alone",
}


def core_modules() -> set[str]:
    return {str(path.relative_to(CORE)) for path in CORE.rglob("*.py")}


def test_each_core_module_has_mutants() -> None:
    """Decisions are what tests are for: each module that makes some is broken in several ways."""
    folder = CORE.relative_to(mutants.ROOT).as_posix()
    counted = dict.fromkeys(core_modules() - set(NOTHING_TO_BREAK), 0)
    for path in sorted((mutants.ROOT / "tests" / "mutations").glob("*.patch")):
        for module in re.findall(rf"^\+\+\+ b/{re.escape(folder)}/(\S+)", path.read_text(), re.MULTILINE):
            assert module in counted, f"{path.name} breaks {module}, which is not counted"
            counted[module] += 1
    few = {module: count for module, count in counted.items() if count < FEWEST_OF_A_CORE_MODULE}
    assert not few, "write more patches in tests/mutations for these"


def test_exempt_modules_hold_no_decisions() -> None:
    assert set(NOTHING_TO_BREAK) <= core_modules()
    for module in NOTHING_TO_BREAK:
        tree = ast.parse((CORE / module).read_text())
        functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert functions == [], f"{module} has something to break"
