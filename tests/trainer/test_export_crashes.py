"""Killed at any moment, prepare and export leave what is whole or nothing, and a second run gets through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.crash_sweep import DIED, die_at, in_child
from tests.trainer.jobs import REPOSITORY, JobFolder
from tunewright_trainer.contract import TrainerConfig


def run_sweep(module: str, function: str, check: str, job: JobFolder, config: TrainerConfig) -> int:
    """Deaths that the command survived in a sweep over every change that it makes to files."""
    job.environment(config)  # writes config.json
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.crash_sweep", module, function, check, str(job.root),
         str(job.root.with_name("sweep"))],
        env=job.environment(config), cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("others", [False, True], ids=["new destination", "destination with other files"])
def test_an_export_killed_at_any_change_is_whole_or_nothing(
    job: JobFolder, finished: TrainerConfig, others: bool
) -> None:
    if others:
        (job.out / "support-bot").mkdir()
        (job.out / "support-bot/notes.txt").write_text("mine")
    deaths = run_sweep(
        "tunewright_trainer.export.run", "export", "output_is_whole_or_not_there", job, finished
    )
    assert deaths > 12  # at the least, one for each file


def test_an_export_killed_again_while_it_completes_still_gets_through(
    job: JobFolder, finished: TrainerConfig
) -> None:
    """The first run dies between two renames, so that files without a manifest lie at the destination."""
    (job.out / "support-bot").mkdir()
    (job.out / "support-bot/notes.txt").write_text("mine")
    program = (
        "import sys; from pathlib import Path; from tests.trainer.jobs import JobFolder;"
        "from tests.trainer.crash_sweep import die_at; from tunewright_trainer.export.run import export;"
        "from tunewright_trainer.contract import TrainerConfig;"
        "root = Path(sys.argv[1]);"
        "config = TrainerConfig.model_validate_json((root / 'config.json').read_bytes());"
        "die_at(int(sys.argv[2]), root); export(config, JobFolder(root).locations)"
    )
    for change in range(1, 200):
        subprocess.run(
            [sys.executable, "-c", program, str(job.root), str(change)],
            env=job.environment(finished), cwd=REPOSITORY, capture_output=True, timeout=60,
        )  # fmt: skip
        if (job.out / "support-bot/adapter_model.safetensors").exists():
            break
    assert not (job.out / "support-bot/tunewright.json").exists()
    run_sweep("tunewright_trainer.export.run", "export", "output_is_whole_or_not_there", job, finished)


def test_a_prepare_killed_at_any_change_is_whole_or_nothing(job: JobFolder) -> None:
    config = job.config(dataset={"validation_fraction": 0.2})
    deaths = run_sweep("tunewright_trainer.prepare", "prepare", "prepared_is_whole_or_not_there", job, config)
    assert deaths > 6


def test_the_sweep_itself_dies_where_it_says(tmp_path: Path) -> None:
    def write_three() -> None:
        die_at(2, tmp_path)
        for name in "abc":
            (tmp_path / name).write_text(name)

    assert in_child(write_three) == DIED
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a"]
    assert os.getpid()
