"""Saving and picking checkpoints with all ranks at once: collective steps around the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunewright_trainer.checkpoint.manifest import CheckpointManifest, FileRecord, record, wrong_hashes
from tunewright_trainer.checkpoint.store import CheckpointStore
from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError, from_os_error
from tunewright_trainer.files import fsync
from tunewright_trainer.train.consensus import Gang

Say = Callable[[str], None]


@dataclass(frozen=True)
class Position:
    """Where a run stands when it is saved."""

    step: int
    epoch: float
    data_position: int


@dataclass(frozen=True)
class Written:
    """What one rank did for a checkpoint: the files that are its own, and what went wrong."""

    records: Sequence[FileRecord]
    error: OSError | None = None


def save(
    store: CheckpointStore,
    gang: Gang,
    position: Position,
    versions: dict[str, str],
    write: Callable[[Path], Written],
) -> Path:
    """All ranks write their part of one checkpoint; returns its folder when it is complete and named.

    ``write`` is called on every rank with the draft's folder. Raises DiskFull or StorageFailed on all
    ranks alike if any of them could not write.
    """
    if gang.rank == 0:
        store.begin(position.step)
    gang.barrier()
    written = write(store.draft(position.step))
    everyone = [part for part in gang.collect(written) if isinstance(part, Written)]
    errors = {rank: part.error for rank, part in enumerate(everyone) if part.error is not None}
    if not errors and gang.rank == 0:
        try:
            store.publish(_manifest(store, position, versions, everyone))
        except OSError as full:
            errors = {0: full}
    errors = gang.share(errors)  # type: ignore[assignment]  # what rank 0 shares is what it had
    if errors:
        if gang.rank == 0:
            store.abandon(position.step)
        rank, error = next(iter(errors.items()))
        raise from_os_error(error, f"rank {rank} wrote the checkpoint of step {position.step}")
    return store.folder / store.draft(position.step).name.removeprefix(".").removesuffix(".tmp")


def _manifest(
    store: CheckpointStore, position: Position, versions: dict[str, str], everyone: Sequence[Written]
) -> CheckpointManifest:
    draft = store.draft(position.step)
    records = {file.path: file for part in everyone for file in part.records}
    for path in sorted(draft.rglob("*")):
        name = path.relative_to(draft).as_posix()
        if path.is_file() and name not in records:
            fsync(path)
            records[name] = record(draft, path)
    identity = store.identity
    return CheckpointManifest(
        job_uid=identity.job_uid,
        spec_hash=identity.spec_hash,
        world_size=identity.world_size,
        zero_stage=identity.zero_stage,
        attempt=store.attempt,
        step=position.step,
        epoch=position.epoch,
        data_position=position.data_position,
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions,
        files=[records[name] for name in sorted(records)],
    )


def pick(store: CheckpointStore, gang: Gang, say: Say) -> tuple[Path, CheckpointManifest] | None:
    """The newest checkpoint that is whole, the same on all ranks; None if the run starts from nothing.

    Rank 0 chooses by manifest and sizes, then each rank hashes its share of the files. What is passed
    over is said with the reason.
    """

    def pass_over(path: Path, reason: str) -> None:
        say(f"checkpoint {path.name} is passed over: {reason}")

    names = [path.name for path, _ in store.candidates(pass_over)] if gang.rank == 0 else None
    for name in _names(gang.share(names)):
        path = store.folder / name
        manifest = CheckpointManifest.model_validate_json((path / "manifest.json").read_bytes())
        mine = manifest.files[gang.rank :: gang.world_size]
        reasons = [reason for reason in gang.collect(wrong_hashes(path, mine)) if reason]
        if not reasons:
            return path, manifest
        if gang.rank == 0:
            pass_over(path, str(reasons[0]))
    return None


def _names(shared: object) -> list[str]:
    if not isinstance(shared, list):
        raise TrainerError(Reason.INTERNAL_ERROR, f"Rank 0 shared {shared!r} instead of checkpoint names.")
    return [str(name) for name in shared]
