"""Knows the few images that a process node can play, all by this machine's own Python environment."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
IMPORT_ROOTS = (REPOSITORY_ROOT / "operator", REPOSITORY_ROOT / "trainer_image")

_ENTRYPOINTS = {
    "tunewright/operator": ("python", "-m", "tunewright", "run"),
    "tunewright/trainer": ("python", "-m", "tunewright_trainer"),
    "python": ("python",),
}


@dataclass(frozen=True)
class Image:
    """What a container image would bring along."""

    entrypoint: tuple[str, ...]
    path: str
    """Value of PATH."""
    python_path: str


class UnknownImage(Exception):
    """No such image here, and no registry to pull it from."""


def find_image(reference: str) -> Image:
    """The image for ``[registry/]name[:tag][@digest]``; raises UnknownImage."""
    name = reference.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    name = head + slash + tail.partition(":")[0]
    name = name.removeprefix("docker.io/").removeprefix("library/")
    if name != "python" and not name.startswith("tunewright/"):
        known = ", ".join(sorted(_ENTRYPOINTS))
        raise UnknownImage(f'failed to pull image "{reference}": not one of those played here ({known})')
    programs = Path(sys.executable).parent
    return Image(
        entrypoint=_ENTRYPOINTS.get(name, ("python",)),
        path=f"{programs}:/usr/local/bin:/usr/bin:/bin",
        python_path=":".join(str(root) for root in IMPORT_ROOTS),
    )
