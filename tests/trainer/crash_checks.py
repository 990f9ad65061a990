"""What must hold after a command died at any moment, and after it was run again."""

from __future__ import annotations

from tests.trainer.jobs import JobFolder
from tunewright_trainer.contract import TrainerConfig
from tunewright_trainer.data import prepared
from tunewright_trainer.export.destination import MANIFEST, damage, read_manifest


def output_is_whole_or_not_there(job: JobFolder, config: TrainerConfig, finished: bool) -> None:
    folder = job.locations.path(config.output.destination.uri)
    there = (folder / MANIFEST).exists()
    assert there or not finished
    if there:
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest.spec_hash == config.spec_hash
        assert damage(folder, manifest) is None
    if finished:
        assert not list(job.out.rglob(".*")), "leftovers at the destination"
    notes = folder / "notes.txt"
    assert not notes.exists() or notes.read_text() == "mine"


def prepared_is_whole_or_not_there(job: JobFolder, config: TrainerConfig, finished: bool) -> None:
    folder = job.workspace(config).root / "prepared"
    found = sorted(folder.iterdir()) if folder.exists() else []
    whole = [path for path in found if not path.name.startswith(".")]
    for path in whole:
        assert prepared.find(path, path.name) is not None
    if finished:
        assert len(whole) == 1
        assert found == whole, "leftovers in the workspace"
