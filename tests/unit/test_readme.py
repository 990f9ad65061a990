"""The README's first screen keeps its word: manifest, targets, files and links that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_manifest_is_the_minimal_example_in_twelve_lines() -> None:
    manifest = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0]
    assert manifest == (ROOT / "examples" / "minimal.yaml").read_text(encoding="utf-8")
    assert len(manifest.splitlines()) <= 12


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE), f"no target {target} in the Makefile"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:-f |install tunewright )([\w./-]+/[\w./-]+)", README)))
)
def test_files_in_commands_exist(path: str) -> None:
    assert (ROOT / path).exists()
