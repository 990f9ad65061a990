"""Writes every file that is derived from the API's models, or says which ones are stale.

``crds/`` is for people who install without Helm, the chart's copy because Helm can't read outside its
folder; both come from ``tunewright.api.crd``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunewright.api import crd

ROOT = Path(__file__).resolve().parents[1]


def generated_files() -> dict[Path, str]:
    """Path in the repository to the content it should have."""
    text = crd.render()
    return {
        Path("crds/finetunejobs.yaml"): text,
        Path("charts/tunewright/files/finetunejobs.yaml"): text,
    }


def stale_files(root: Path = ROOT) -> list[Path]:
    """The generated files under ``root`` that are missing or differ from what they should hold."""
    wanted = generated_files()
    return [
        path
        for path, text in wanted.items()
        if not (root / path).exists() or (root / path).read_text() != text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="hack.generate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    options = parser.parse_args()
    stale = stale_files()
    if options.check:
        for path in stale:
            print(f"{path} is stale: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(generated_files()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
