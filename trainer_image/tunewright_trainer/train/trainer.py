"""TRL's SFT trainer, taught to work in a gang: exact batches, exact evaluation, our checkpoints.

What it changes of the Hugging Face Trainer: where micro-batches come from, how a checkpoint is written,
and how the validation loss is computed. Loss, backward and optimizer step are TRL's and DeepSpeed's own.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

from tunewright_trainer.checkpoint import gang as checkpoints
from tunewright_trainer.checkpoint.manifest import FileRecord
from tunewright_trainer.checkpoint.shards import DurableShards, save_durably
from tunewright_trainer.checkpoint.store import CheckpointStore
from tunewright_trainer.progress import Reporter
from tunewright_trainer.train import data
from tunewright_trainer.train.consensus import Gang
from tunewright_trainer.train.weights import frozen_names, gathered, write_adapter
from tunewright_trainer.versions import versions


@dataclass(frozen=True)
class Feed:
    """What a rank reads."""

    rows: data.PackedRows
    batches: data.GlobalBatches
    validation: data.PackedRows | None

    def as_dataset(self) -> Dataset:
        """The same rows as the type that TRL's constructor asks for; its own loader never reads it."""
        return Dataset(InMemoryTable(self.rows.table), fingerprint="prepared")


class GangTrainer(SFTTrainer):
    """One rank's trainer. All methods here that take part in collectives are called by all ranks alike."""

    def __init__(
        self, *, gang: Gang, store: CheckpointStore, feed: Feed, reporter: Reporter, **sft: Any
    ) -> None:
        super().__init__(train_dataset=feed.as_dataset(), data_collator=data.collate, **sft)
        self.gang, self.store, self.feed, self.reporter = gang, store, feed, reporter
        self.saved_step = 0
        """Step whose state is safe: of the checkpoint this run came from or has written last."""
        self._broken = torch.zeros((), dtype=torch.bool, device=self.args.device)
        self._step_begin: tuple[Any, ...] = ()

    @property
    def engine(self) -> Any:
        """DeepSpeed's engine around the model."""
        return self.model_wrapped

    @property
    def trained(self) -> PreTrainedModel | PeftModel:
        """The model inside the engine."""
        return cast(PreTrainedModel | PeftModel, self.model)

    @property
    def batches(self) -> data.GlobalBatches:
        return self.feed.batches

    @property
    def validation(self) -> data.PackedRows | None:
        return self.feed.validation

    def get_train_dataloader(self) -> DataLoader[Any]:
        return data.loader(self.feed.rows, self.batches, pin_memory=self.args.dataloader_pin_memory)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        # The first moment after DeepSpeed has wrapped the optimizer, before a checkpoint is loaded.
        forget_rehearsal(self.optimizer)
        return super().create_scheduler(num_training_steps, optimizer)

    # --- a step -------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[no-untyped-call]
        # On the device, without waiting for it: the gang looks at it once per step.
        self._broken |= ~torch.isfinite(loss)
        return loss

    def broken(self) -> torch.Tensor:
        """Whether a loss or gradient of this rank's last step was not finite; forgets it."""
        norm = self.engine.get_global_grad_norm()
        # Under FP16 an infinite gradient is ordinary: DeepSpeed skips the step and lowers its loss scale.
        gradient = norm is not None and not self.args.fp16 and not math.isfinite(float(norm))
        broken = self._broken | gradient
        self._broken = torch.zeros_like(self._broken)
        return broken

    def mark_step_begin(self) -> None:
        """Remember what a half-made step changes, so that a stop in its middle can be saved exactly."""
        self._step_begin = (
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state() if self.args.device.type == "cuda" else None,
            self.state.num_input_tokens_seen,
        )

    def return_to_step_begin(self) -> None:
        """Undo what a half-made step changed. Its gradients are simply not saved."""
        python, numpy, cpu, cuda, tokens = self._step_begin
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
        self.state.num_input_tokens_seen = tokens

    # --- evaluation ---------------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss per token of the whole validation split; nothing if a stop was asked for meanwhile."""
        metrics = {}
        loss = self._validation_loss()
        if loss is not None:
            metrics = {"eval_loss": loss}
            self.log(dict(metrics))
        else:
            self.control.should_save = self.control.should_training_stop = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluated(self) -> bool:
        """Whether the validation loss of the current step is known, in this run or from its checkpoint."""
        step = self.state.global_step
        return any("eval_loss" in entry and entry["step"] == step for entry in self.state.log_history)

    def _validation_loss(self) -> float | None:
        rows = self.validation
        if rows is None:
            raise RuntimeError("there is no validation split")
        model = self.engine
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        places = data.validation_batches(
            len(rows), self.args.per_device_train_batch_size, self.gang.rank, self.gang.world_size
        )
        with torch.no_grad():
            for chosen in places:
                if self.gang.agree().stop:
                    return None
                inputs = self._prepare_inputs(data.collate([rows[index] for index in chosen]))
                output = model(**inputs, use_cache=False, fused_lm_head=True)
                sums[0] -= output.log_probs.double().sum()
                sums[1] += output.label_mask.sum()
                self.reporter.update()
        torch.distributed.all_reduce(sums)
        total, tokens = sums.tolist()
        return total / tokens if tokens else None

    # --- checkpoints --------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        position = checkpoints.Position(step, float(self.state.epoch or 0), step * self.batches.global_batch)
        checkpoints.save(self.store, self.gang, position, versions(), self._write_checkpoint)
        self.saved_step = step

    def _write_checkpoint(self, draft: Path) -> checkpoints.Written:
        """This rank's files, under the names that the Trainer reads back on resume."""
        peft = isinstance(self.model, PeftModel)
        shards = DurableShards(draft, frozen_names(self.trained) if peft else ())
        self.engine.checkpoint_engine = shards
        # A checkpoint holds no code, and what DeepSpeed writes by itself would fail before a barrier.
        self.engine._copy_recovery_script = lambda _folder: None
        self.engine.save_checkpoint(
            str(draft), tag=self._tag(), save_latest=False, exclude_frozen_parameters=peft
        )
        adapter = gathered(self.trained, self.gang, trainable_only=True) if peft else {}
        try:
            records = [*shards.records, *self._write_own_files(draft)]
            if adapter and isinstance(self.model, PeftModel):
                write_adapter(self.model, adapter, draft / "adapter")
        except OSError as error:
            return checkpoints.Written((), shards.error or error)
        return checkpoints.Written(records, shards.error)

    def _tag(self) -> str:
        return f"global_step{self.state.global_step}"

    def _write_own_files(self, draft: Path) -> list[FileRecord]:
        several = self.gang.world_size > 1
        values: dict[str, Any] = {
            f"rng_state_{self.gang.rank}.pth" if several else "rng_state.pth": self._random_state()
        }
        if self.gang.rank == 0:
            values["scheduler.pt"] = self.callback_handler.lr_scheduler.state_dict()
            self.state.save_to_json(str(draft / "trainer_state.json"))
            (draft / "latest").write_text(self._tag(), encoding="ascii")
        written = {name: save_durably(value, draft / name) for name, value in values.items()}
        return [
            FileRecord(path=name, size_bytes=size, sha256=hash_) for name, (size, hash_) in written.items()
        ]

    def _random_state(self) -> dict[str, Any]:
        state = {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "cpu": torch.random.get_rng_state(),
        }
        if torch.cuda.is_available():
            several = self.gang.world_size > 1
            state["cuda"] = torch.cuda.get_rng_state_all() if several else torch.cuda.get_rng_state()
        return state


def forget_rehearsal(optimizer: Any) -> None:
    """Undo the step on zero gradients by which DeepSpeed allocates optimizer state under ZeRO 0.

    Adam counted it: its bias correction was off by one, and losses differed from those of ZeRO 1 to 3.
    """
    wrapped = getattr(optimizer, "optimizer", None)
    if isinstance(wrapped, FP16_UnfusedOptimizer):
        wrapped.optimizer.state.clear()
        for masters, weights in zip(wrapped.fp32_groups, wrapped.fp16_groups, strict=True):
            for master, weight in zip(masters, weights, strict=True):
                master.data.copy_(weight.data)
