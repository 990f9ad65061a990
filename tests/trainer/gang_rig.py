"""Runs real gangs for tests: a workspace with a tiny model and shards, and pods as local processes.

A pod is the trainer's own entrypoint with the environment that the operator would give it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hack.test_materials import make_tiny_model
from tunewright_trainer.contract import ANSWER, TrainerConfig
from tunewright_trainer.data.shards import ShardWriter

ROOT = Path(__file__).parents[2]
SEQUENCE_LENGTH = 64
VOCABULARY_SIZE = 512
DEADLINE_SECONDS = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_shard(path: Path, rows: int, *, seed: int, documents: int = 3) -> None:
    """Packed rows of random tokens, ``documents`` in each, uneven; a third of them carries no loss."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(path) as shard:
        for _ in range(rows):
            length = int(random.integers(SEQUENCE_LENGTH // 2, SEQUENCE_LENGTH + 1))
            cuts = np.sort(random.choice(np.arange(1, length), documents - 1, replace=False))
            ids = random.integers(3, VOCABULARY_SIZE, length, dtype=np.int32)
            positions = np.concatenate([np.arange(part) for part in np.diff([0, *cuts, length])])
            silent = (random.random(length) < 1 / 3) | (positions == 0)
            labels = np.where(silent, -100, ids)
            shard.append(
                {
                    "input_ids": ids,
                    "labels": labels.astype(np.int32),
                    "position_ids": positions.astype(np.int32),
                }
            )


@dataclass
class Site:
    """A claim with a model and prepared data, shared by the jobs of a test module."""

    root: Path

    @classmethod
    def make(cls, root: Path, rows: int = 22, validation_rows: int = 5) -> Site:
        make_tiny_model(root / "model", vocabulary_size=VOCABULARY_SIZE)
        write_shard(root / "prepared" / "key" / "train.arrow", rows, seed=1)
        if validation_rows:
            write_shard(root / "prepared" / "key" / "validation.arrow", validation_rows, seed=2)
        return cls(root)

    def config(self, uid: str, **changes: Any) -> TrainerConfig:
        """A small LoRA job; ``changes`` are fields of the sections, as ``training={"max_steps": 3}``."""
        sections: dict[str, dict[str, Any]] = {
            "training": {
                "max_steps": 6,
                "learning_rate": 1e-2,
                "global_batch": 8,
                "micro_batch": 2,
                "gradient_accumulation": 2,
                "precision": "FP32",
                "schedule": {"type": "Cosine", "warmup_ratio": 0.1},
                "evaluation": {"every_steps": 3, "every_epochs": None},
            },
            "deepspeed": {"zero_stage": 2},
            "method": {"type": "LoRA", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}},
            "checkpoint": {"every_steps": 2, "every_minutes": None, "keep": 2},
            "compute": {"nodes": 1, "processes_per_node": 2, "device": "cpu"},
        }
        for name, values in changes.items():
            sections[name] = {**sections.get(name, {}), **values}
        return TrainerConfig.model_validate(
            {
                "job_name": uid,
                "job_namespace": "default",
                "job_uid": uid,
                "spec_hash": "spec-1",
                "model": {"source": {"uri": "pvc://work/model"}},
                "dataset": {"train": [{"source": {"uri": "pvc://work/train.jsonl"}}]},
                "workspace": {"uri": "pvc://work"},
                "output": {"destination": {"uri": "pvc://work/out"}},
                "prepared_key": "key",
                **sections,
            }
        )

    def job(self, uid: str) -> Path:
        return self.root / "jobs" / uid

    def checkpoints(self, uid: str) -> list[str]:
        folder = self.job(uid) / "checkpoints"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def metrics(self, uid: str) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.job(uid) / "final" / "metrics.json").read_bytes())
        return metrics

    def adapter(self, uid: str) -> bytes:
        return (self.job(uid) / "final" / "adapter_model.safetensors").read_bytes()


@dataclass
class Pod:
    """One started entrypoint."""

    process: subprocess.Popen[bytes]
    scratch: Path
    output: Path
    ended: list[int] = field(default_factory=list)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def answer(self) -> Any:
        return ANSWER.validate_json((self.scratch / "termination-log").read_bytes())

    def rank_pids(self) -> dict[int, int]:
        """Process id by global rank, of the ranks that have started."""
        found = {}
        for path in (self.scratch / "outcomes").glob("*.json"):
            outcome = json.loads(path.read_bytes())
            found[outcome["rank"]] = outcome["pid"]
        return found

    def wait(self, timeout_seconds: float = DEADLINE_SECONDS) -> int:
        try:
            return self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pod did not end in {timeout_seconds:.0f} s:\n{self.text()}") from None

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition()``; fails at once if the pod ends before."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the pod ended before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.text()}"
            time.sleep(0.02)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def started(
    site: Site,
    config: TrainerConfig,
    folder: Path,
    *,
    nodes: int = 1,
    attempt: int = 1,
    environment: dict[str, str] | None = None,
    file_limit_bytes: int | None = None,
) -> Iterator[list[Pod]]:
    """Start all pods of an attempt; kills what still runs at the end."""
    port = free_port()
    pods = []
    try:
        for index in range(nodes):
            place = {
                "PET_NNODES": str(nodes),
                "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}",
                "JOB_COMPLETION_INDEX": str(index),
                "TUNEWRIGHT_ATTEMPT": str(attempt),
            }
            scratch = folder / f"attempt-{attempt}-pod-{index}"
            pods.append(_start(site, config, scratch, {**place, **(environment or {})}, file_limit_bytes))
        yield pods
    finally:
        for pod in pods:
            if pod.process.poll() is None:
                pod.process.kill()
            pod.process.wait()


def _start(
    site: Site,
    config: TrainerConfig,
    scratch: Path,
    extra: dict[str, str],
    file_limit_bytes: int | None,
) -> Pod:
    scratch.mkdir(parents=True)
    (scratch / "config.json").write_text(config.model_dump_json())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "trainer_image"), str(ROOT)]),
        "TUNEWRIGHT_CONFIG": str(scratch / "config.json"),
        "TUNEWRIGHT_SCRATCH": str(scratch),
        "TUNEWRIGHT_TERMINATION_LOG": str(scratch / "termination-log"),
        "TUNEWRIGHT_MOUNTS": json.dumps({"pvc/work": str(site.root)}),
        "TUNEWRIGHT_COLLECTIVE_TIMEOUT_SECONDS": "60",
        "PET_NPROC_PER_NODE": str(config.compute.processes_per_node),
        "PET_RDZV_ID": config.job_uid,
        "PET_LOCAL_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        **extra,
    }

    def limit_files() -> None:
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))

    output = scratch / "output.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunewright_trainer", "train"],
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            preexec_fn=limit_files,
        )
    return Pod(process, scratch, output)


def run(site: Site, config: TrainerConfig, folder: Path, **options: Any) -> Pod:
    """Run an attempt to its end and return its first pod."""
    with started(site, config, folder, **options) as pods:
        for pod in pods:
            pod.ended.append(pod.wait())
        return pods[0]
