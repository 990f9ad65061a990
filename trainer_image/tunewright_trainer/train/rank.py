"""One rank of the gang: ``python -m tunewright_trainer.train.rank``, started by torchrun.

The story of a training run is :func:`train`. Heavy imports come late: a SIGTERM that arrives while torch
is still loading must already find its handler.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright_trainer.console import say
from tunewright_trainer.contract import (
    ENV_ATTEMPT,
    ENV_CONFIG,
    ExitCode,
    Failure,
    Reason,
    TrainerConfig,
    TrainResult,
)
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.train.outcome import Outcome
from tunewright_trainer.train.stop import GangStopped, StopRequest

if TYPE_CHECKING:
    from tunewright_trainer.train.run import Run

OUTCOMES = "outcomes"
"""Folder under the pod's scratch where ranks write how they ended."""


@dataclass
class Here:
    """This process's place in the gang, and where it leaves word."""

    rank: int = field(default_factory=lambda: int(os.environ["RANK"]))
    local_rank: int = field(default_factory=lambda: int(os.environ["LOCAL_RANK"]))
    attempt: int = field(default_factory=lambda: int(os.environ.get(ENV_ATTEMPT) or 1))
    locations: Locations = field(default_factory=Locations.from_environment)

    def tell(self, exit_code: int | None = None, answer: TrainResult | Failure | None = None) -> None:
        """Write this rank's outcome; without an exit code it says: I am running."""
        Outcome(
            rank=self.rank,
            local_rank=self.local_rank,
            pid=os.getpid(),
            exit_code=exit_code,
            ended_at=None if exit_code is None else time.time(),
            answer=answer,
        ).write(self.locations.scratch / OUTCOMES)


def main() -> int:
    """Train, and say how it ended. Returns the exit code; to torchrun all but 0 are failures."""
    request = StopRequest().install()
    _die_with_parent()
    faulthandler.enable()
    _quiet_libraries()
    here = Here()
    here.tell()
    config = TrainerConfig.model_validate_json(Path(os.environ[ENV_CONFIG]).read_bytes())
    code, answer = _attempt(config, here, request)
    here.tell(code, answer)
    return code


def _attempt(config: TrainerConfig, here: Here, request: StopRequest) -> tuple[int, TrainResult | Failure]:
    from tunewright_trainer.train.classify import classify
    from tunewright_trainer.train.run import Run

    run = Run(config, Workspace.of(config, here.locations), here.locations, here.attempt, request)
    try:
        result = run.train()
        run.finish()
    except GangStopped:
        return _stopped(run, here)
    except Exception as error:
        traceback.print_exc()
        named = classify(error, rank=here.rank, step=run.step, device=config.compute.device)
        return named.exit_code, named.failure().model_copy(
            update={"rank": here.rank, "step": run.step, "last_checkpoint_step": run.saved_step}
        )
    return ExitCode.OK, result


def _stopped(run: Run, here: Here) -> tuple[int, Failure]:
    """The gang stopped because some pod was told to: this one (TERMINATED) or a peer."""
    saved = run.saved_step
    kept = f"a checkpoint of step {saved} is saved" if saved else "there was nothing to save yet"
    reason = Reason.PREEMPTED if run.request.made else Reason.STOPPED_FOR_PEER
    cause = "This pod" if run.request.made else "Another pod of the gang"
    failure = Failure(
        reason=reason,
        message=f"{cause} got SIGTERM; all ranks stopped at step {run.step or 0} and {kept}.",
        advice="Training goes on from there.",
        rank=here.rank,
        step=run.step,
        last_checkpoint_step=saved,
    )
    say(failure.message)
    code = ExitCode.TERMINATED if run.request.made else ExitCode.STOPPED_FOR_PEER
    return code, failure


def _die_with_parent() -> None:
    """Let the kernel end this rank if torchrun dies: nobody would ever stop it otherwise."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _quiet_libraries() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
    # Progress is ours to post: with our fields, and without disturbing training.
    os.environ["DISABLE_KUBEFLOW_INTEGRATION"] = "TRUE"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Deprecations between libraries that we pin: nothing that the reader of a job's log could act on.
    libraries = r"(torch|transformers|deepspeed|trl|peft|accelerate)(\.|$)"
    warnings.filterwarnings("ignore", category=FutureWarning, module=libraries)
    for name in ("accelerate.accelerator", "torch.utils.flop_counter"):
        logging.getLogger(name).setLevel(logging.ERROR)


def leave(code: int) -> None:
    """Exit now. After a failure the communicators may be broken, and tearing them down could hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
