"""Sources on a mounted volume: claims (with globs), ConfigMap keys, and local files where allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.locations import Locations
from tunewright_trainer.storage.base import DATA_SUFFIXES, DataFile, ModelFolder

_GLOB_CHARACTERS = "*?["
_NAMES_SHOWN = 8


class VolumeStore:
    """``pvc://claim/path``, ``configmap://name/key`` or ``file:///path``."""

    def __init__(self, uri: str, locations: Locations) -> None:
        self._uri = uri.rstrip("/")
        self._locations = locations

    def model(self, revision: str | None, *, weights: bool) -> ModelFolder:
        if revision is not None:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"A revision is set for {self._uri}, but only hf:// models have revisions.",
                "Leave model.revision out, or put each revision into a folder of its own.",
            )
        path = self._locations.path(self._uri)
        if not path.is_dir():
            raise TrainerError(
                Reason.MODEL_NOT_FOUND,
                f"Model folder {self._uri} does not exist{self._neighbours(path)}.",
                "Set model.source to a folder with config.json, tokenizer.json and safetensors weights.",
            )
        for entry in path.iterdir():
            self._locations.path(f"{self._uri}/{entry.name}")  # refuses links that lead out of the volume
        return ModelFolder(path=path, uri=self._uri, name=self._uri)

    def data_files(self) -> list[DataFile]:
        fixed, pattern = _split_glob(self._uri)
        base = self._locations.path(fixed)
        if pattern:
            return self._matches(fixed, base, pattern)
        if base.is_file():
            return [DataFile(base, self._uri)]
        if base.is_dir():
            found = [path for path in base.iterdir() if path.is_file() and path.name.endswith(DATA_SUFFIXES)]
            if found:
                return self._inside_volume(self._uri, base, sorted(found))
            raise TrainerError(
                Reason.DATA_NOT_FOUND,
                f"{self._uri} holds no data file ({', '.join(DATA_SUFFIXES)}).",
                "Name the file, or a pattern such as *.jsonl.",
            )
        raise TrainerError(
            Reason.DATA_NOT_FOUND,
            f"Data file {self._uri} does not exist{self._neighbours(base)}.",
            "Correct the path in dataset.train or dataset.validation.",
        )

    def _matches(self, fixed: str, base: Path, pattern: str) -> list[DataFile]:
        found = sorted(path for path in base.glob(pattern) if path.is_file())
        if not found:
            raise TrainerError(
                Reason.DATA_NOT_FOUND,
                f"{self._uri} matches no file{self._neighbours(base / pattern)}.",
                "Correct the pattern in dataset.train or dataset.validation.",
            )
        return self._inside_volume(fixed, base, found)

    def _inside_volume(self, uri: str, base: Path, paths: Sequence[Path]) -> list[DataFile]:
        """``paths`` below ``base`` as data files.

        Raises ConfigInvalid if one leaves the volume through a link: secrets are mounted into the same pod.
        """
        files = [DataFile(path, f"{uri.rstrip('/')}/{path.relative_to(base)}") for path in paths]
        for file in files:
            self._locations.path(file.uri)
        return files

    def _neighbours(self, path: Path) -> str:
        """ "; <folder> holds: a, b": the names next to what was looked for."""
        parent = path.parent
        while not parent.is_dir() and parent != parent.parent:
            parent = parent.parent
        names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
        if not names:
            return "; the folder it should be in is empty"
        more = ", …" if len(names) > _NAMES_SHOWN else ""
        return f"; next to it there are: {', '.join(names[:_NAMES_SHOWN])}{more}"


def _split_glob(uri: str) -> tuple[str, str]:
    """``pvc://c/a/b*/x.jsonl`` as (``pvc://c/a``, ``b*/x.jsonl``); an empty pattern without wildcards."""
    parts = uri.split("/")
    for number, part in enumerate(parts):
        if number > 2 and any(character in part for character in _GLOB_CHARACTERS):
            return "/".join(parts[:number]), "/".join(parts[number:])
    return uri, ""
