"""A prepared folder: made once for its key, whole or not there, found by any job that needs the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright_trainer.contract import DataFacts, TrainerConfig
from tunewright_trainer.data.build import DocumentCollector, Split, split_off, write_sequences
from tunewright_trainer.data.documents import Renderer
from tunewright_trainer.data.key import LocatedSource
from tunewright_trainer.data.lint import Lint
from tunewright_trainer.data.report import add_warnings, build_report, render_example
from tunewright_trainer.data.shards import ShardReader, ShardWriter
from tunewright_trainer.data.tokenizer import Tokenizer
from tunewright_trainer.errors import from_os_error
from tunewright_trainer.files import folder_made_whole, read_json, write_json

TRAIN, VALIDATION = "train.arrow", "validation.arrow"
MANIFEST, REPORT = "manifest.json", "report.json"


class PreparedFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    rows: int
    size_bytes: int


class PreparedManifest(BaseModel):
    """Content of manifest.json: what the shards are made of, and the facts about them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    prepared_key: str
    data: DataFacts
    files: list[PreparedFile]


def find(folder: Path, key: str) -> PreparedManifest | None:
    """The manifest of a prepared folder that is whole; None if it has to be made."""
    try:
        manifest = PreparedManifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError:
        return None
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            return None
    return manifest if manifest.prepared_key == key else None


def example_of(folder: Path) -> str:
    """The rendered example of a prepared folder."""
    report = read_json(folder / REPORT)
    return str(report.get("example", "")) if isinstance(report, dict) else ""


def build(
    folder: Path,
    key: str,
    config: TrainerConfig,
    tokenizer: Tokenizer,
    train: Sequence[LocatedSource],
    validation: Sequence[LocatedSource],
    *,
    fingerprint: str,
    sequence_length: int,
    packed: bool,
    warnings: Sequence[str],
) -> PreparedManifest:
    """Read, lint, tokenise and pack all sources into ``folder``.

    Raises DataInvalid with the first ten bad rows, DiskFull, StorageFailed.
    """
    shutil.rmtree(folder, ignore_errors=True)  # there only if it is damaged: see find
    renderer = Renderer(tokenizer, config, sequence_length)
    lint = Lint()
    try:
        with folder_made_whole(folder, config.job_uid) as temporary:
            documents_path = temporary / "documents.tmp"
            with ShardWriter(documents_path, ("input_ids", "labels")) as writer:
                collector = DocumentCollector(renderer, writer, lint)
                training = collector.collect(train, training=True)
                held_out = collector.collect(validation, training=False)
            if config.dataset.validation_fraction:
                training, held_out = split_off(
                    training, config.dataset.validation_fraction, config.dataset.split_seed
                )
            add_warnings(lint, collector, training, sequence_length)
            documents = ShardReader(documents_path)
            example_row = documents[training.places[0]]
            example = render_example(tokenizer, example_row["input_ids"], example_row["labels"])
            files, longest = _write(temporary, documents, training, held_out, sequence_length, packed)
            documents.close()
            documents_path.unlink()
            facts = _facts(
                training, held_out, collector, fingerprint, files[0].rows, longest, packed,
                [*warnings, *lint.warnings],
            )  # fmt: skip
            write_json(temporary / REPORT, build_report(facts, training, held_out, collector, example))
            manifest = PreparedManifest(prepared_key=key, data=facts, files=files)
            write_json(temporary / MANIFEST, manifest.model_dump())
    except OSError as error:
        raise from_os_error(error, "writing the prepared data") from error
    return manifest


def _write(
    folder: Path, documents: ShardReader, training: Split, held_out: Split, sequence_length: int, packed: bool
) -> tuple[list[PreparedFile], int]:
    files, longest = [], 0
    for name, split in ((TRAIN, training), (VALIDATION, held_out)):
        if not split.places:
            continue
        path = folder / name
        rows, tokens = write_sequences(documents, split, path, sequence_length=sequence_length, packed=packed)
        files.append(PreparedFile(path=name, rows=rows, size_bytes=path.stat().st_size))
        longest = max(longest, tokens)
    return files, longest


def _facts(
    training: Split,
    held_out: Split,
    collector: DocumentCollector,
    fingerprint: str,
    sequences: int,
    longest: int,
    packed: bool,
    warnings: list[str],
) -> DataFacts:
    formats = sorted(set(collector.formats))
    return DataFacts(
        rows=training.rows,
        validation_rows=held_out.rows,
        tokens=sum(training.lengths),
        loss_tokens=sum(training.loss_tokens),
        truncated_rows=training.truncated,
        sequences=sequences,
        sequence_length=longest,
        packed=packed,
        format="+".join(formats),
        fingerprint=fingerprint,
        warnings=warnings,
    )
