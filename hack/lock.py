"""Resolves pyproject.toml into the locks, so that one version of a library is used everywhere.

requirements.lock is the development environment; the two images hold subsets of it. Hashes cover every
file of a version, so a lock works on each Python and processor that the library is published for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEVELOPMENT = "requirements.lock"
OPERATOR = "requirements-operator.lock"
TRAINER = "requirements-trainer.lock"
UV = "hack/locks/uv.txt"
"""What installs the others, in the bootstrap and in the images."""

_COMPILE = ["pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
_COMPILE += ["--python-version", "3.11"]


def compile_lock(output: str, arguments: list[str], upgrade: bool) -> None:
    """Resolves with uv into ``output``; what stands there already is kept where it still fits."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, *_COMPILE, "--output-file", output, *arguments]
    subprocess.run(command + (["--upgrade"] if upgrade else []), cwd=ROOT, check=True)
    print(f"wrote {output}")


def main() -> int:
    upgrade = "--upgrade" in sys.argv[1:]
    # triton (1 GB) is of use on a GPU only: development machines do without, the image has it.
    development = ["--extra", "trainer", "--extra", "dev", "--no-emit-package", "triton", "pyproject.toml"]
    compile_lock(DEVELOPMENT, development, upgrade)
    same_versions = ["--constraint", DEVELOPMENT]
    compile_lock(OPERATOR, [*same_versions, "pyproject.toml"], upgrade)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as needs:
        # The extra alone, not on top of the operator's needs: no kopf in the trainer image.
        needs.write("\n".join(project["optional-dependencies"]["trainer"]))
        needs.flush()
        compile_lock(TRAINER, [*same_versions, needs.name], upgrade)
    lines = (ROOT / DEVELOPMENT).read_text()
    block = re.search(r"^uv==(?:.*\\\n)*.*\n", lines, re.MULTILINE)
    assert block is not None, "uv is a development dependency"
    (ROOT / UV).write_text(block.group())
    return 0


if __name__ == "__main__":
    sys.exit(main())
