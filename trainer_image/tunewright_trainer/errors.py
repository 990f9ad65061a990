"""Errors that reach a person: each names a reason, says what happened in one sentence, and what to do.

Code anywhere in the trainer raises :class:`TrainerError`; ``__main__`` turns it into the termination
message, the text on stderr and the exit code.
"""

from __future__ import annotations

import errno

from tunewright_trainer.contract import ExitCode, Failure, Reason

EXIT_CODES: dict[Reason, ExitCode] = {
    Reason.CONFIG_INVALID: ExitCode.CONFIG_INVALID,
    Reason.DATA_INVALID: ExitCode.DATA_INVALID,
    Reason.DATA_NOT_FOUND: ExitCode.DATA_INVALID,
    Reason.MODEL_NOT_FOUND: ExitCode.MODEL_INVALID,
    Reason.MODEL_INVALID: ExitCode.MODEL_INVALID,
    Reason.AUTHENTICATION_FAILED: ExitCode.AUTHENTICATION_FAILED,
    Reason.STORAGE_FAILED: ExitCode.STORAGE_ERROR,
    Reason.DISK_FULL: ExitCode.STORAGE_ERROR,
    Reason.DESTINATION_OCCUPIED: ExitCode.CONFIG_INVALID,
    Reason.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Reason.NAN_LOSS: ExitCode.NAN_LOSS,
    Reason.DEAD_ADAPTER: ExitCode.DEAD_ADAPTER,
    Reason.STALLED: ExitCode.STALLED,
    Reason.RANK_LOST: ExitCode.RANK_LOST,
    Reason.RANK_FAILED: ExitCode.INTERNAL_ERROR,
    Reason.STOPPED_FOR_PEER: ExitCode.STOPPED_FOR_PEER,
    Reason.PREEMPTED: ExitCode.TERMINATED,
    Reason.INTERNAL_ERROR: ExitCode.INTERNAL_ERROR,
}
"""What a container exits with for each reason; the operator reads both."""


class TrainerError(Exception):
    """A failure with a name.

    ``message`` is one sentence: what happened, to which object, the figure that shows it.
    ``advice`` says what to do about it. ``error`` is the last line of the underlying error, if any.
    """

    def __init__(
        self, reason: Reason, message: str, advice: str | None = None, *, error: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.advice = advice
        self.error = error

    @property
    def exit_code(self) -> ExitCode:
        return EXIT_CODES[self.reason]

    def failure(self) -> Failure:
        """The answer for the termination message."""
        return Failure(reason=self.reason, message=self.message, advice=self.advice, error=self.error)


def from_os_error(error: OSError, what: str) -> TrainerError:
    """A :class:`TrainerError` for an operating-system error met while doing ``what`` ("writing x").

    A full disk (or quota) and a refused access get names of their own: what a person does about them
    differs.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TrainerError(
            Reason.DISK_FULL,
            f"The disk was full while {what}.",
            "Make the volume larger, or delete old checkpoints and prepared data from it.",
            error=str(error),
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TrainerError(
            Reason.STORAGE_FAILED,
            f"Access was refused while {what}: {error.strerror}.",
            "Check the volume's access mode and that its files belong to the pod's fsGroup.",
            error=str(error),
        )
    return TrainerError(
        Reason.STORAGE_FAILED, f"Storage failed while {what}: {error.strerror or error}.", error=str(error)
    )


def last_line(error: BaseException) -> str:
    """The line that a traceback of ``error`` would end with."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1]}" if text else type(error).__name__
