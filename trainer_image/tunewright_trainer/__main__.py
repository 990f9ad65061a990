"""The trainer's three commands: prepare, train and export. Each answers with one termination message."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tunewright_trainer.answers import write_answer
from tunewright_trainer.contract import ENV_CONFIG, ExitCode, Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError, from_os_error, last_line

COMMANDS = {
    "prepare": "look at model and data, tokenise and pack the data (CPU, no torch)",
    "train": "start this pod's ranks and train with the rest of the gang",
    "export": "bring the finished adapter to its destination and verify it (CPU)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (contract.ExitCode)."""
    parser = argparse.ArgumentParser(
        prog="tunewright_trainer",
        description=f"Reads its configuration (contract.TrainerConfig) from the file named by {ENV_CONFIG}.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, help_text in COMMANDS.items():
        commands.add_parser(name, help=help_text, description=help_text)
    command = parser.parse_args(arguments).command
    try:
        return _run(command, read_config())
    except TrainerError as error:
        return _fail(error)
    except OSError as error:
        traceback.print_exc()
        return _fail(from_os_error(error, f"running {command}"))
    except MemoryError as error:
        return _fail(
            TrainerError(
                Reason.OUT_OF_MEMORY,
                f"{command} ran out of memory.",
                "Give the pod more memory.",
                error=last_line(error),
            )
        )
    except Exception as error:
        traceback.print_exc()
        return _fail(
            TrainerError(
                Reason.INTERNAL_ERROR,
                f"{command} failed unexpectedly: {last_line(error)}.",
                "This is a defect: please report it with the pod's log.",
                error=last_line(error),
            )
        )


def read_config() -> TrainerConfig:
    """The job's configuration. Raises ConfigInvalid if it is missing or doesn't follow the contract."""
    path = os.environ.get(ENV_CONFIG)
    if not path:
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"{ENV_CONFIG} is not set.",
            "Set it to the path of the configuration file.",
        )
    try:
        return TrainerConfig.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise TrainerError(
            Reason.CONFIG_INVALID, f"The configuration file can't be read: {error.strerror}."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"The configuration is wrong at {place}: {first['msg']}.",
            "Operator and trainer image must be of the same version.",
            error=f"{error.error_count()} errors",
        ) from error


def _run(command: str, config: TrainerConfig) -> int:
    # Imported late: each command pays for what it needs alone.
    if command == "train":
        from tunewright_trainer.train.launch import main as train

        return train(config)
    from tunewright_trainer.locations import Locations

    locations = Locations.from_environment()
    if command == "prepare":
        from tunewright_trainer.prepare import prepare

        write_answer(prepare(config, locations))
    else:
        from tunewright_trainer.export.run import export

        write_answer(export(config, locations))
    return ExitCode.OK


def _fail(error: TrainerError) -> int:
    print(f"error: {error.reason}: {error.message}", file=sys.stderr)
    if error.advice:
        print(f"       {error.advice}", file=sys.stderr)
    if error.error and error.error not in error.message:
        print(f"       ({error.error})", file=sys.stderr)
    sys.stderr.flush()
    write_answer(error.failure())
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
