"""The folder of checkpoints: whole or not there, the newest good one is found, old ones go."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tunewright_trainer.checkpoint.manifest import CheckpointManifest, Identity, record, wrong_hashes
from tunewright_trainer.checkpoint.shards import DurableShards, save_durably
from tunewright_trainer.checkpoint.store import CheckpointStore
from tunewright_trainer.files import sha256_of

IDENTITY = Identity(job_uid="uid-1", spec_hash="spec-1", world_size=2, zero_stage=2)


def store(folder: Path, *, attempt: int = 1, keep: int = 2, identity: Identity = IDENTITY) -> CheckpointStore:
    return CheckpointStore(folder, identity, attempt, keep)


def publish(target: CheckpointStore, step: int, content: bytes = b"weights") -> Path:
    target.begin(step)
    file = target.draft(step) / "global_step" / "shard.pt"
    file.parent.mkdir()
    file.write_bytes(content)
    identity = target.identity
    return target.publish(
        CheckpointManifest(
            job_uid=identity.job_uid,
            spec_hash=identity.spec_hash,
            world_size=identity.world_size,
            zero_stage=identity.zero_stage,
            attempt=target.attempt,
            step=step,
            epoch=0.5,
            data_position=step * 8,
            written_at="2026-11-24T07:00:00+00:00",
            versions={},
            files=[record(target.draft(step), file)],
        )
    )


class Passed:
    """Collects what is passed over and why."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def __call__(self, path: Path, reason: str) -> None:
        self.reasons[path.name] = reason


def picked(target: CheckpointStore) -> tuple[list[str], dict[str, str]]:
    passed = Passed()
    found: Iterator[tuple[Path, CheckpointManifest]] = target.candidates(passed)
    return [path.name for path, _ in found], passed.reasons


def test_a_draft_is_no_checkpoint_until_it_is_published(tmp_path: Path) -> None:
    target = store(tmp_path)
    target.begin(10)
    assert picked(target) == ([], {})
    publish(target, 10)
    assert picked(target) == (["step-00000010-a1"], {})
    assert not target.draft(10).exists()


def test_the_newest_comes_first_whatever_the_order_of_names(tmp_path: Path) -> None:
    target = store(tmp_path, keep=9)
    for step in (9, 100_000_000, 20):
        publish(target, step)
    publish(store(tmp_path, attempt=2, keep=9), 20)
    assert picked(target)[0] == [
        "step-100000000-a1",
        "step-00000020-a2",
        "step-00000020-a1",
        "step-00000009-a1",
    ]


def test_only_as_many_as_wanted_are_kept(tmp_path: Path) -> None:
    target = store(tmp_path, keep=2)
    for step in (2, 4, 6):
        publish(target, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004-a1", "step-00000006-a1"]


def test_a_zombie_of_an_earlier_attempt_deletes_nothing_newer(tmp_path: Path) -> None:
    for step in (10, 12):
        publish(store(tmp_path, attempt=2), step)
    publish(store(tmp_path, attempt=1, keep=1), 14)
    assert {path.name for path in tmp_path.iterdir()} >= {"step-00000010-a2", "step-00000012-a2"}


def test_folders_without_a_manifest_do_not_count_as_kept(tmp_path: Path) -> None:
    target = store(tmp_path, keep=1)
    publish(target, 2)
    (tmp_path / "step-00000009-a1").mkdir()
    publish(target, 4)
    assert picked(target)[0] == ["step-00000004-a1"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    target = store(tmp_path)
    publish(target, 5, b"first")
    path = publish(target, 5, b"second")
    assert (path / "global_step" / "shard.pt").read_bytes() == b"second"


def test_sweeping_removes_drafts_of_this_and_earlier_attempts_only(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        store(tmp_path, attempt=attempt).begin(7)
    store(tmp_path, attempt=2).sweep()
    assert [path.name for path in tmp_path.iterdir()] == [".step-00000007-a3.tmp"]


def _no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _torn_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def _truncated_shard(path: Path) -> None:
    (path / "global_step" / "shard.pt").write_bytes(b"wei")


def _missing_shard(path: Path) -> None:
    (path / "global_step" / "shard.pt").unlink()


def _other(field: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest[field] = value
        (path / "manifest.json").write_text(json.dumps(manifest))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_no_manifest, "no manifest"),
        (_torn_manifest, "manifest can't be read"),
        (_truncated_shard, "has 3 bytes instead of 7"),
        (_missing_shard, "shard.pt is missing"),
        (_other("job_uid", "uid-2"), "belongs to another job"),
        (_other("spec_hash", "spec-2"), "belongs to another job"),
        (_other("world_size", 4), "saved by 4 ranks and there are 2"),
        (_other("zero_stage", 3), "under ZeRO 3"),
    ],
)
def test_a_bad_checkpoint_is_passed_over_with_its_reason(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    target = store(tmp_path)
    publish(target, 2)
    path = publish(target, 4)
    damage(path)
    names, reasons = picked(target)
    assert names == ["step-00000002-a1"]
    assert reason in reasons["step-00000004-a1"]


def test_changed_content_of_the_same_size_is_found_by_hash(tmp_path: Path) -> None:
    path = publish(store(tmp_path), 4)
    manifest = CheckpointManifest.model_validate_json((path / "manifest.json").read_bytes())
    assert wrong_hashes(path, manifest.files) is None
    (path / "global_step" / "shard.pt").write_bytes(b"weighty")
    assert "has changed" in str(wrong_hashes(path, manifest.files))


def test_saving_durably_hashes_what_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "value.pt"
    tensor = torch.arange(10_000, dtype=torch.float32)
    size_bytes, sha256 = save_durably({"a": tensor, "b": "text"}, path)
    assert (path.stat().st_size, sha256_of(path)) == (size_bytes, sha256)
    loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded["a"], tensor)


def test_a_full_disk_stays_an_error_of_the_operating_system() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        save_durably({"a": torch.zeros(1 << 20)}, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_shards_keep_the_error_instead_of_leaving_peers_in_a_barrier(tmp_path: Path) -> None:
    shards = DurableShards(tmp_path)
    (tmp_path / "full.pt").symlink_to("/dev/full")
    shards.save({"a": torch.zeros(1 << 20)}, str(tmp_path / "full.pt"))
    shards.save({"a": torch.zeros(4)}, str(tmp_path / "later.pt"))
    assert shards.error is not None
    assert shards.error.errno == errno.ENOSPC
    assert shards.records == []
    assert not (tmp_path / "later.pt").exists()


def test_shards_record_size_and_hash_of_each_file(tmp_path: Path) -> None:
    shards = DurableShards(tmp_path)
    (tmp_path / "global_step2").mkdir()
    shards.save({"a": torch.zeros(4)}, str(tmp_path / "global_step2" / "one.pt"))
    assert shards.records == [record(tmp_path, tmp_path / "global_step2" / "one.pt")]
