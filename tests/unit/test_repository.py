"""The repository's own rules: sizes, layout, locks, versions, and that nothing of one machine is in it."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
LOCKS = ("requirements.lock", "requirements-operator.lock", "requirements-trainer.lock")


@cache
def tracked_files() -> tuple[Path, ...]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file())


def modules() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def project() -> dict[str, Any]:
    parsed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return parsed


def pins(lock: str) -> dict[str, str]:
    """Package to version."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_module_says_why_it_exists_and_is_of_readable_size(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not text.strip(), "no module docstring"
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_import_roots_are_no_packages() -> None:
    """With an __init__.py, operator/ would hide the standard library's module of that name."""
    assert not list(ROOT.glob("operator/__init__.py")) + list(ROOT.glob("trainer_image/__init__.py"))


def test_no_file_names_a_folder_of_one_machine() -> None:
    homes = re.compile(r"(?<![\w.$}/])/(?:root|work|home/(?!user\b)\w+)/")
    found = [
        f"{relative(path)}: {match.group()}"
        for path in tracked_files()
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".sh", ".tpl", ".lua"}
        and path != Path(__file__)
        for match in homes.finditer(path.read_text())
    ]
    assert not found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(pins(lock))
    assert all("--hash=sha256:" in block for block in blocks)


def test_images_hold_the_versions_that_are_tested() -> None:
    tested = pins("requirements.lock") | {"triton": pins("requirements-trainer.lock")["triton"]}
    for lock in (*LOCKS[1:], "hack/locks/uv.txt"):
        assert pins(lock).items() <= tested.items(), lock


def test_operator_image_has_no_torch_and_trainer_image_no_kopf() -> None:
    assert not {"torch", "transformers", "deepspeed", "numpy"} & pins("requirements-operator.lock").keys()
    assert not {"kopf", "kubernetes", "pytest"} & pins("requirements-trainer.lock").keys()


@pytest.mark.parametrize(
    ("lock", "extras"),
    [(LOCKS[0], ["", "trainer", "dev"]), (LOCKS[1], [""]), (LOCKS[2], ["trainer"])],
    ids=LOCKS,
)
def test_lock_covers_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    optional = project()["optional-dependencies"]
    wanted = [need for extra in extras for need in (optional[extra] if extra else project()["dependencies"])]
    assert wanted
    missing = {re.split(r"[<>=!~;\[ ]", need)[0].lower() for need in wanted} - pins(lock).keys()
    assert not missing, "run `make lock`"


def test_changelog_starts_with_the_current_version() -> None:
    versions = re.findall(r"^## \[?([\w.]+)\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == project()["version"]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"[a-z-]+", re.search(r"\.PHONY:((?:.*\\\n)*.*)", text)[1]))  # type: ignore[index]
    targets = set(re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE))
    assert phony == targets
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == targets - {"venv"}


def test_decisions_are_numbered_and_whole() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], page.name
