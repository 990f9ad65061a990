"""A job's claims, configuration and commands for trainer tests: real folders, the real entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright_trainer.checkpoint.manifest import record
from tunewright_trainer.contract import ANSWER, ExportResult, Facts, Failure, TrainerConfig, TrainResult
from tunewright_trainer.files import write_json
from tunewright_trainer.locations import Locations, Workspace

REPOSITORY = Path(__file__).parents[2]
COMMAND_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """What a pod would show: exit code, answer in the termination message, log."""

    code: int
    answer: Facts | TrainResult | ExportResult | Failure | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class JobFolder:
    """Claims ``models``, ``data``, ``work`` and ``out`` as folders below ``root``."""

    root: Path

    @property
    def mounts(self) -> dict[str, Path]:
        mounts = {f"pvc/{claim}": self.root / claim for claim in ("models", "data", "work", "out")}
        return mounts | {"configmap/faq": self.root / "configmap", "secret/token": self.root / "secret"}

    @property
    def locations(self) -> Locations:
        return Locations(mounts=self.mounts, scratch=self.root / "scratch")

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def out(self) -> Path:
        return self.root / "out"

    def workspace(self, config: TrainerConfig) -> Workspace:
        return Workspace.of(config, self.locations)

    def make(self) -> JobFolder:
        for folder in (*self.mounts.values(), self.root / "scratch"):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def config(self, **changes: Any) -> TrainerConfig:
        """A job that tunes ``pvc://models/tiny`` on ``pvc://data/train.jsonl``; ``dataset`` is merged."""
        base: dict[str, Any] = {
            "job_name": "support-bot",
            "job_namespace": "default",
            "job_uid": "0b6f",
            "spec_hash": "aaaa",
            "model": {"source": {"uri": "pvc://models/tiny"}},
            "dataset": {"train": [{"source": {"uri": "pvc://data/train.jsonl"}}], "max_sequence_length": 128},
            "method": {"type": "LoRA", "lora": {"rank": 4}},
            "workspace": {"uri": "pvc://work/tuning"},
            "output": {"destination": {"uri": "pvc://out/support-bot"}},
        }
        dataset = base["dataset"] | changes.pop("dataset", {})
        return TrainerConfig.model_validate(base | changes | {"dataset": dataset})

    def write_rows(self, rows: Sequence[Any], name: str = "train.jsonl") -> Path:
        """Write a data file; strings are written as they are, everything else as JSON."""
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path = self.data / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def environment(self, config: TrainerConfig) -> dict[str, str]:
        """What the operator would set for a pod of this job."""
        path = self.root / "config.json"
        path.write_text(config.model_dump_json())
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "trainer_image"), str(REPOSITORY)]),
            "PYTHONWARNINGS": "error",
            "OMP_NUM_THREADS": "1",
            "TUNEWRIGHT_CONFIG": str(path),
            "TUNEWRIGHT_MOUNTS": json.dumps({name: str(path) for name, path in self.mounts.items()}),
            "TUNEWRIGHT_SCRATCH": str(self.root / "scratch"),
            "TUNEWRIGHT_TERMINATION_LOG": str(self.root / "termination-log"),
        }

    def run(
        self, command: str, config: TrainerConfig, environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run ``python -m tunewright_trainer <command>`` as a pod would."""
        log = self.root / "termination-log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "tunewright_trainer", command],
            env=self.environment(config) | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
        )
        answer = ANSWER.validate_json(log.read_text()) if log.exists() else None
        return Outcome(done.returncode, answer, done.stdout, done.stderr)


METRICS = {"loss": 1.25, "eval_loss": 1.5, "step": 20, "epoch": 1.0, "versions": {"torch": "2.13.0"}}


def finish(job: JobFolder, config: TrainerConfig, weights: Path) -> Path:
    """Leave ``weights`` in the workspace as training does: with metrics and a manifest."""
    final = job.workspace(config).final(config.job_uid)
    shutil.rmtree(final, ignore_errors=True)
    shutil.copytree(weights, final)
    write_json(final / "metrics.json", METRICS)
    files = [record(final, path).model_dump() for path in sorted(final.iterdir())]
    write_json(final / "manifest.json", {"version": 1, "spec_hash": config.spec_hash, "files": files})
    return final


def chat(*turns: str, system: str | None = None) -> dict[str, Any]:
    """A Messages row of user and assistant turns, in turn."""
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return {"messages": messages}


def edit_json(path: Path, **changes: Any) -> None:
    """Replace members of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
