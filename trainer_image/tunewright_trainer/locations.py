"""Where things lie: URIs of a TrainerConfig as paths of this pod, and the parts of a workspace.

TrainerConfig holds URIs only; which path a claim, secret or ConfigMap is mounted at comes by environment.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewright_trainer.contract import ENV_MOUNTS, ENV_SCRATCH, Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError

ENV_ALLOW_LOCAL_FILES = "TUNEWRIGHT_ALLOW_LOCAL_FILES"
"""``1`` allows ``file://`` URIs; set for runs by hand and in the development cluster only."""

_URI = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)$", re.DOTALL)
_MOUNTED_SCHEMES = {"pvc": "pvc", "configmap": "configmap"}


@dataclass(frozen=True)
class Uri:
    """``scheme://host/path``; ``path`` has no leading slash (but for ``file``, whose host is empty)."""

    scheme: str
    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + (f"/{self.path}" if self.path else "")


def parse_uri(text: str) -> Uri:
    """Split a URI. Raises ConfigInvalid if it isn't one, or if its path climbs with ``..``."""
    match = _URI.match(text)
    if match is None:
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"{text!r} is not a URI.",
            "Write it with its scheme, for example pvc://claim/folder or hf://org/name.",
        )
    scheme, rest = match["scheme"], match["rest"]
    host, _, path = rest.partition("/")
    if scheme in ("pvc", "configmap", "file") and ".." in path.split("/"):
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"{text} climbs out of its volume with '..'.",
            "Write the path without '..'.",
        )
    return Uri(scheme, host, path.lstrip("/") if scheme != "file" else path)


@dataclass(frozen=True)
class Locations:
    """The mounts of this pod and what it may read."""

    mounts: Mapping[str, Path]
    scratch: Path
    allow_local_files: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Locations:
        try:
            mounts = json.loads(environment.get(ENV_MOUNTS) or "{}")
            mounts = {str(name): Path(path) for name, path in mounts.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise TrainerError(
                Reason.CONFIG_INVALID, f"{ENV_MOUNTS} is not a JSON object of paths: {error}."
            ) from error
        return cls(
            mounts=mounts,
            scratch=Path(environment.get(ENV_SCRATCH) or tempfile.gettempdir()),
            allow_local_files=environment.get(ENV_ALLOW_LOCAL_FILES) == "1",
        )

    def path(self, uri: str) -> Path:
        """Path of a ``pvc://``, ``configmap://`` or ``file://`` URI; it need not exist.

        Raises ConfigInvalid for other schemes, for a claim that isn't mounted, and for a path that
        leaves its volume through ``..`` or a symbolic link.
        """
        parsed = parse_uri(uri)
        if parsed.scheme == "file":
            return self._local_path(parsed)
        if parsed.scheme not in _MOUNTED_SCHEMES:
            raise TrainerError(Reason.CONFIG_INVALID, f"{uri} is not on a mounted volume.")
        root = self._mount(f"{_MOUNTED_SCHEMES[parsed.scheme]}/{parsed.host}", uri)
        path = root / parsed.path if parsed.path else root
        if not path.resolve().is_relative_to(root.resolve()):
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"{uri} leaves its volume through a symbolic link.",
                "Copy what the link points to into the volume.",
            )
        return path

    def secret(self, name: str | None, key: str) -> str | None:
        """Value of a key of a mounted secret, stripped; None without a secret or without that key."""
        if name is None:
            return None
        path = self._mount(f"secret/{name}", f"secret {name}") / key
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def _mount(self, name: str, what: str) -> Path:
        if name not in self.mounts:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"{what} can't be read: {name} is not mounted into this pod "
                f"(mounted: {', '.join(sorted(self.mounts)) or 'nothing'}).",
            )
        return self.mounts[name]

    def _local_path(self, uri: Uri) -> Path:
        if not self.allow_local_files:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"{uri} is a local file, which is refused in a cluster.",
                "Put the file on a claim and write pvc://claim/path.",
            )
        return Path("/" + uri.path.lstrip("/"))


@dataclass(frozen=True)
class Workspace:
    """The parts of a job's workspace, each by its one name."""

    root: Path
    uri: str

    @classmethod
    def of(cls, config: TrainerConfig, locations: Locations) -> Workspace:
        return cls(locations.path(config.workspace.uri), config.workspace.uri.rstrip("/"))

    @property
    def models(self) -> Path:
        """Downloaded models, shared by the jobs of this workspace."""
        return self.root / "models"

    def prepared(self, key: str) -> Path:
        """Shards, manifest.json and report.json of one prepared dataset."""
        return self.root / "prepared" / key

    def job(self, uid: str) -> Path:
        """All that belongs to one job alone. It stays when the job is deleted: see docs/limits.md."""
        return self.root / "jobs" / uid

    def checkpoints(self, uid: str) -> Path:
        return self.job(uid) / "checkpoints"

    def logs(self, uid: str, attempt: int) -> Path:
        return self.job(uid) / "logs" / f"attempt-{attempt}"

    def final(self, uid: str) -> Path:
        """What training leaves for export: adapter or model, manifest.json, metrics.json."""
        return self.job(uid) / "final"
