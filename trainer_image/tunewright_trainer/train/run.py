"""The story of a run on one rank: resume if possible, train in step with the gang, leave a result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from transformers import PrinterCallback, set_seed

from tunewright_trainer.callbacks import Report, SaveSchedule, StepBoundary, peak_memory_bytes
from tunewright_trainer.checkpoint import gang as checkpoints
from tunewright_trainer.checkpoint.manifest import Identity
from tunewright_trainer.checkpoint.store import CheckpointStore
from tunewright_trainer.console import say
from tunewright_trainer.contract import ENV_METRICS_ADDRESS, Reason, TrainerConfig, TrainResult
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.model.folder import job_model
from tunewright_trainer.progress import Progress, Reporter, Silent, reporter
from tunewright_trainer.train import data, final, recipe, weights
from tunewright_trainer.train.consensus import Gang
from tunewright_trainer.train.finished import finished
from tunewright_trainer.train.stop import AlreadyTrained, GangStopped, StopRequest
from tunewright_trainer.train.trainer import Feed, GangTrainer


class Run:
    """One attempt of one rank. What a failure has to tell (step, last checkpoint) can be read at any time."""

    def __init__(
        self,
        config: TrainerConfig,
        workspace: Workspace,
        locations: Locations,
        attempt: int,
        request: StopRequest,
    ) -> None:
        self.config, self.workspace, self.locations = config, workspace, locations
        self.attempt, self.request = attempt, request
        self._trainer: GangTrainer | None = None
        self._reporter: Reporter = Silent()
        self._resumed: int | None = None

    @property
    def step(self) -> int | None:
        return self._trainer.state.global_step if self._trainer is not None else None

    @property
    def saved_step(self) -> int | None:
        return (self._trainer.saved_step or None) if self._trainer is not None else None

    def train(self) -> TrainResult:
        """Train to the end. Raises GangStopped after a stop that the gang agreed on, TrainerError else."""
        done = finished(self.workspace.final(self.config.job_uid), self.config)
        gang, arguments = self._join()
        # All ranks see the same volume, but not at the same moment: rank 0's answer counts.
        if shared := gang.share(done):
            say("training was finished before; nothing to do")
            return TrainResult.model_validate(shared).model_copy(update={"rank": gang.rank})
        self._reporter = self._start_reporter(gang)
        try:
            return self._train(gang, arguments)
        finally:
            self._reporter.close()

    def finish(self) -> None:
        """Leave the gang in order. Only after success: a broken gang can't be left, only abandoned."""
        dist.barrier()
        dist.destroy_process_group()

    def _train(self, gang: Gang, arguments: Any) -> TrainResult:
        store = self._store(gang)
        trainer, report = self._build(gang, arguments, store)
        self._trainer = trainer
        path = self._resume_from(gang, store, trainer)
        started = time.monotonic()
        try:
            trainer.train(resume_from_checkpoint=None if path is None else str(path))
        except AlreadyTrained:
            say(f"all {trainer.state.max_steps} steps were made before; only the result was missing")
        seconds = time.monotonic() - started
        if gang.stopping:
            raise GangStopped
        result = self._result(gang, trainer, report, seconds)
        final.write(
            trainer.trained,
            self.workspace.final(self.config.job_uid),
            self.config,
            result,
            trainer.state.log_history,
            gang,
            self.attempt,
        )
        return result

    # --- parts --------------------------------------------------------------------------------------

    def _join(self) -> tuple[Gang, Any]:
        """Meet the other ranks.

        DeepSpeed has to make the process group: if transformers or torch does, ZeRO-3 loads the model as
        if there were one rank.
        """
        # An op that only inference calls; unless told so, DeepSpeed compiles it at each cold start.
        deepspeed.ops.__compatible_ops__ = {}
        if self.config.compute.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        deepspeed.init_distributed(
            recipe.BACKENDS[self.config.compute.device], timeout=recipe.collective_timeout(), verbose=False
        )
        scratch = self.locations.scratch / "trainer"
        arguments = recipe.arguments(self.config, dist.get_world_size(), scratch)
        return Gang(self.request, arguments.device), arguments

    def _start_reporter(self, gang: Gang) -> Reporter:
        if gang.rank != 0:
            return Silent()
        started = reporter(Progress(attempt=self.attempt), self._serve_metrics())
        started.update()
        return started

    def _serve_metrics(self) -> Callable[[Progress], None] | None:
        address = os.environ.get(ENV_METRICS_ADDRESS)
        if not address:
            return None
        from tunewright_trainer.progress_metrics import serve

        try:
            return serve(address, self.config.job_namespace, self.config.job_name)
        except (OSError, ValueError) as error:
            say(f"metrics can't be served on {address} ({error}); training goes on without")
            return None

    def _store(self, gang: Gang) -> CheckpointStore:
        deepspeed_config = self.config.deepspeed
        store = CheckpointStore(
            self.workspace.checkpoints(self.config.job_uid),
            Identity(
                self.config.job_uid,
                self.config.spec_hash,
                gang.world_size,
                deepspeed_config.zero_stage if deepspeed_config else 0,
            ),
            self.attempt,
            self.config.checkpoint.keep,
        )
        if gang.rank == 0:
            store.sweep()
        return store

    def _model_folder(self, gang: Gang) -> Path:
        """The model that prepare found. If it has to be fetched again, rank 0 does it for all."""
        if gang.rank == 0:
            job_model(self.config, self.locations)
        gang.barrier()
        return job_model(self.config, self.locations).path

    def _feed(self, gang: Gang) -> Feed:
        key = self.config.prepared_key
        if key is None:
            raise TrainerError(Reason.CONFIG_INVALID, "The configuration names no prepared data.")
        folder = self.workspace.prepared(key)
        table = data.open_split(folder, "train")
        if table is None or table.num_rows == 0:
            raise TrainerError(
                Reason.DATA_NOT_FOUND,
                f"There is no prepared data {key} in the workspace.",
                "Was the workspace emptied? Start the job again: its prepare step makes the data anew.",
            )
        validation = data.open_split(folder, "validation")
        plan = recipe.training(self.config)
        batches = data.GlobalBatches(
            table.num_rows,
            global_batch=plan.global_batch,
            micro_batch=plan.micro_batch,
            rank=gang.rank,
            world_size=gang.world_size,
            seed=plan.seed,
        )
        rows = data.PackedRows(validation) if validation is not None and validation.num_rows else None
        return Feed(data.PackedRows(table), batches, rows)

    def _build(self, gang: Gang, arguments: Any, store: CheckpointStore) -> tuple[GangTrainer, Report]:
        folder = self._model_folder(gang)
        set_seed(arguments.seed)
        trainer = GangTrainer(
            gang=gang,
            store=store,
            feed=self._feed(gang),
            reporter=self._reporter,
            model=recipe.model(self.config, folder),
            processing_class=recipe.tokenizer(folder),
            args=arguments,
            peft_config=recipe.adapter(self.config),
        )
        # The adapter's first weights are the same everywhere; dropout should not be.
        set_seed(arguments.seed + gang.rank)
        report = Report(self._reporter, quiet=gang.rank != 0)
        saves = SaveSchedule(self.config.checkpoint)
        boundary = StepBoundary(trainer, gang, saves, recipe.training(self.config).evaluation)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(boundary)
        trainer.add_callback(report)
        return trainer, report

    def _resume_from(self, gang: Gang, store: CheckpointStore, trainer: GangTrainer) -> Path | None:
        picked = checkpoints.pick(store, gang, say)
        if picked is None:
            return None
        path, manifest = picked
        if gang.rank == 0:
            say(f"resuming from {path.name}: step {manifest.step}, {manifest.data_position} rows read")
        self._resumed = trainer.saved_step = manifest.step
        self._reporter.update(resumed_from_step=manifest.step, last_checkpoint_step=manifest.step)
        return path

    def _result(self, gang: Gang, trainer: GangTrainer, report: Report, seconds: float) -> TrainResult:
        state = trainer.state
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        evaluated = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        trainable, total = weights.counts(trainer.trained)
        return TrainResult(
            rank=gang.rank,
            world_size=gang.world_size,
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=losses[-1] if losses else None,
            eval_loss=evaluated[-1] if evaluated else None,
            trainable_parameters=trainable,
            total_parameters=total,
            tokens=int(state.num_input_tokens_seen),
            train_seconds=seconds,
            tokens_per_second=report.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(),
            resumed_from_step=self._resumed,
            adapter=f"{self.workspace.uri}/jobs/{self.config.job_uid}/final",
        )
