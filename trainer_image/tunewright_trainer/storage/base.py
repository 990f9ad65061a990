"""What every kind of source can do: give a model folder, give data files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DATA_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz", ".parquet")
"""Names that are read as data when a folder or a whole repository is given."""

DESCRIPTION_FILES = (
    "config.json", "generation_config.json", "*.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja",
    "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "README.md",
)  # fmt: skip
"""What prepare reads of a model, but for its weights. No pickles: weights come as safetensors only."""

WEIGHT_FILES = ("model*.safetensors",)


@dataclass(frozen=True)
class DataFile:
    """A file of rows: where it lies here, and what the user calls it."""

    path: Path
    uri: str


@dataclass(frozen=True)
class ModelFolder:
    """A model in a folder of this pod."""

    path: Path
    uri: str
    """What the user wrote."""
    name: str
    """The base model's true name: ``org/name`` on a hub, else the URI."""
    revision: str | None = None
    """The hub's commit."""
    complete: bool = True
    """False while the weights may not be there yet."""


class Store(Protocol):
    """One source. Both methods may be called again after a failure and go on where they stopped."""

    def model(self, revision: str | None, *, weights: bool) -> ModelFolder:
        """The model's folder; without ``weights`` only DESCRIPTION_FILES need be in it.

        Raises ModelNotFound, AuthenticationFailed, StorageFailed, DiskFull.
        """
        ...

    def data_files(self) -> list[DataFile]:
        """The data files that the URI names, sorted by name; at least one.

        Raises DataNotFound, AuthenticationFailed, StorageFailed, DiskFull.
        """
        ...
