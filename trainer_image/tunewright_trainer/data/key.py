"""Names prepared data after all it depends on: the same is never made twice, none mistaken for another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import tokenizers

from tunewright_trainer.console import Ticker
from tunewright_trainer.contract import DatasetSource, Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.files import sha256_of
from tunewright_trainer.storage import DataFile


@dataclass(frozen=True)
class LocatedSource:
    """A dataset source with its files and their hashes."""

    source: DatasetSource
    files: list[DataFile]
    hashes: list[str]


def hash_files(source: DatasetSource, files: list[DataFile]) -> LocatedSource:
    """Hash a source's files. Raises DataInvalid if its ``sha256`` is set and differs."""
    hashes = []
    ticker = Ticker(f"hashing {source.source.uri}", len(files), unit="files")
    for number, file in enumerate(files):
        hashes.append(sha256_of(file.path))
        ticker.at(number + 1)
    if source.sha256 is not None:
        if len(files) != 1:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"{source.source.uri} has a sha256 but names {len(files)} files.",
                "Name one file, or leave sha256 out.",
            )
        if hashes[0] != source.sha256.lower().removeprefix("sha256:"):
            raise TrainerError(
                Reason.DATA_INVALID,
                f"{files[0].uri} has the sha256 {hashes[0]}, not {source.sha256}.",
                "The file has changed: correct dataset.sha256 if that is meant.",
            )
    return LocatedSource(source, files, hashes)


def fingerprint(
    config: TrainerConfig,
    train: Sequence[LocatedSource],
    validation: Sequence[LocatedSource],
    tokenizer_fingerprint: str,
    *,
    sequence_length: int,
    packed: bool,
) -> str:
    """sha256 over data, tokenizer, template and settings: the same for the same training tokens."""
    dataset = config.dataset
    parts = {
        "train": [_parts(source) for source in train],
        "validation": [_parts(source) for source in validation],
        "tokenizer": tokenizer_fingerprint,
        "task": config.task,
        "sequence_length": sequence_length,
        "packed": packed,
        "loss_on": dataset.loss_on,
        "validation_fraction": dataset.validation_fraction,
        "split_seed": dataset.split_seed if dataset.validation_fraction else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def prepared_key(data_fingerprint: str) -> str:
    """The prepared folder's name: the fingerprint, and the code that makes tokens of it."""
    return hashlib.sha256(f"{data_fingerprint} {_code_version()}".encode()).hexdigest()[:24]


def _parts(located: LocatedSource) -> dict[str, object]:
    source = located.source
    return {
        "files": located.hashes,
        "format": source.format,
        "columns": source.columns,
        "max_rows": source.max_rows,
    }


def _code_version() -> str:
    digest = hashlib.sha256(f"{tokenizers.__version__} {jinja2.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
