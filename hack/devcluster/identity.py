"""Whom pods run as: an unprivileged user where this machine allows it, else the caller, and which it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster.images import IMPORT_ROOTS

POD_UID = 65532
"""The numeric USER of our images."""

_PROBE = "import sys, os, aiohttp; [os.listdir(path) for path in sys.argv[1:]]"


@dataclass(frozen=True)
class Identity:
    """How a pod's process is started. ``uid`` None: as the caller."""

    uid: int | None
    prefix: tuple[str, ...]
    """What stands before the command."""
    note: str
    """How this differs from a container's user; empty when it doesn't."""

    def may_be(self, user: int) -> bool:
        """Whether a pod that asks for this uid gets it, or at least what the image's own user gets."""
        return user == POD_UID or (self.uid is None and user == os.geteuid() != 0)

    def give(self, path: Path) -> None:
        """Make a file or folder the pod's own."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def give_tree(self, folder: Path) -> None:
        """Make a folder and all in it the pod's own."""
        if self.uid is None:
            return
        self.give(folder)
        for path in folder.rglob("*"):
            self.give(path)


def choose_identity() -> Identity:
    """The strictest identity under which this Python environment and our sources can be read."""
    caller = os.geteuid()
    if caller != 0:
        return Identity(None, (), f"pods run as the caller (uid {caller}), not as uid {POD_UID}")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return Identity(None, (), "pods run as root: setpriv (package util-linux) was not found")
    plain = (setpriv, f"--reuid={POD_UID}", f"--regid={POD_UID}", "--clear-groups", "--no-new-privs")
    if _can_read(plain):
        return Identity(POD_UID, (*plain, "--"), "")
    # The environment lies in a home that only root may enter: reading (no writing) is allowed everywhere.
    reading = (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    if _can_read(reading):
        note = "file read permissions: the Python environment is in a folder that only root may enter"
        return Identity(POD_UID, (*reading, "--"), note)
    return Identity(None, (), f"pods run as root: uid {POD_UID} can't read {sys.prefix}")


def _can_read(prefix: tuple[str, ...]) -> bool:
    command = [*prefix, "--", sys.executable, "-c", _PROBE, *map(str, IMPORT_ROOTS)]
    return subprocess.run(command, capture_output=True, cwd="/", check=False, timeout=60).returncode == 0
