"""What happens at the boundaries of a step: agreeing with the gang, watching for NaN, saving, reporting.

Callbacks of the Hugging Face Trainer; they hold no training logic, they set the Trainer's control flags.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunewright_trainer.console import say
from tunewright_trainer.contract import CheckpointConfig, EvaluationConfig, Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.progress import Remaining, Reporter
from tunewright_trainer.train.consensus import Gang
from tunewright_trainer.train.stop import AlreadyTrained, GangStopped

if TYPE_CHECKING:
    from tunewright_trainer.train.trainer import GangTrainer


@dataclass
class SaveSchedule:
    """When a periodic checkpoint is due. The clock is rank 0's; the others learn it from the gang."""

    config: CheckpointConfig
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._last = self.clock()

    def due(self, step: int) -> bool:
        minutes = self.config.every_minutes
        if minutes is not None and self.clock() - self._last >= minutes * 60:
            return True
        return self.config.every_steps is not None and step % self.config.every_steps == 0

    def saved(self) -> None:
        self._last = self.clock()


def evaluation_due(config: EvaluationConfig, step: int, steps_per_epoch: int, total_steps: int) -> bool:
    """Whether the validation split is evaluated after ``step``; after the last one it always is."""
    if step >= total_steps:
        return True
    if config.every_steps is not None:
        return step % config.every_steps == 0
    return config.every_epochs is not None and step % (config.every_epochs * steps_per_epoch) == 0


class StepBoundary(TrainerCallback):
    """Exchanges stop, save and broken losses with the gang, and turns what was agreed into control flags."""

    def __init__(
        self, trainer: GangTrainer, gang: Gang, saves: SaveSchedule, evaluation: EvaluationConfig
    ) -> None:
        self._trainer, self._gang, self._saves, self._evaluation = trainer, gang, saves, evaluation

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """Before the first step: stop if asked to, and measure what was not measured at this step yet.

        That is the untrained model at step 0, or an evaluation that a SIGTERM cut short.
        """
        step = state.global_step
        if self._gang.agree().stop:
            raise GangStopped
        due = self._trainer.validation is not None and (step == 0 or self._evaluation_due(state))
        if due and not self._trainer.evaluated() and not self._trainer.evaluate():
            raise GangStopped
        if step >= state.max_steps:
            raise AlreadyTrained

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        self._trainer.mark_step_begin()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A stop between accumulation steps drops the half-made step and saves the one before."""
        if self._gang.agree().stop:
            if state.global_step == self._trainer.saved_step:
                raise GangStopped
            self._trainer.return_to_step_begin()
            control.should_save = control.should_training_stop = True
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        step = state.global_step
        agreed = self._gang.agree(save=self._saves.due(step), broken=self._trainer.broken())
        if agreed.broken_rank is not None:
            raise _not_finite(agreed.broken_rank, step)
        last = step >= state.max_steps
        control.should_training_stop = control.should_training_stop or agreed.stop
        control.should_save = agreed.save or agreed.stop or last
        control.should_evaluate = (
            not agreed.stop and self._trainer.validation is not None and self._evaluation_due(state)
        )
        return control

    def _evaluation_due(self, state: TrainerState) -> bool:
        steps_per_epoch = self._trainer.batches.steps_per_epoch
        return evaluation_due(self._evaluation, state.global_step, steps_per_epoch, state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        self._saves.saved()


def _not_finite(rank: int, step: int) -> TrainerError:
    return TrainerError(
        Reason.NAN_LOSS,
        f"The loss or its gradient was not a finite number at step {step} (first seen on rank {rank}).",
        "Lower the learning rate or use precision BF16 instead of FP16, and look at the data of that step.",
    )


class Report(TrainerCallback):
    """Lines in the log (rank 0 alone is not quiet) and snapshots for the reporter."""

    def __init__(
        self, reporter: Reporter, *, quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reporter, self._clock = reporter, clock
        self._say = (lambda _text: None) if quiet else say
        self._remaining = Remaining(clock)
        self._tokens: tuple[int, float] | None = None
        self.tokens_per_second: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        self._tokens = (int(state.num_input_tokens_seen), self._clock())
        self._reporter.update(step=state.global_step, total_steps=state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if "eval_loss" in logs:
            self._say(f"step {state.global_step}/{state.max_steps}  eval_loss {logs['eval_loss']:.4f}")
            self._reporter.update(eval_loss=logs["eval_loss"])
        if "loss" in logs and "learning_rate" in logs:
            self._on_step(state, logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        self._say(f"step {state.global_step}/{state.max_steps}  checkpoint saved")
        self._reporter.update(last_checkpoint_step=state.global_step)

    def _on_step(self, state: TrainerState, logs: dict[str, Any]) -> None:
        step = state.global_step
        if self._tokens is not None:
            seconds = self._clock() - self._tokens[1]
            self.tokens_per_second = (state.num_input_tokens_seen - self._tokens[0]) / max(seconds, 1e-9)
        grad_norm = _finite(logs.get("grad_norm", math.nan))
        self._say(
            f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}"
            + (f"  grad_norm {grad_norm:.4f}" if grad_norm is not None else "")
            + f"  learning_rate {logs['learning_rate']:.3e}"
            f"  tokens_per_second {self.tokens_per_second or 0:.0f}"
        )
        self._reporter.update(
            step=step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=_finite(logs["loss"]),
            grad_norm=grad_norm,
            learning_rate=_finite(logs["learning_rate"]),
            tokens_per_second=self.tokens_per_second,
            remaining_seconds=self._remaining.seconds(step, state.max_steps),
            peak_memory_bytes=peak_memory_bytes(),
        )


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def peak_memory_bytes() -> int:
    """Most memory this rank has used so far: of the GPU if there is one, else resident host memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
