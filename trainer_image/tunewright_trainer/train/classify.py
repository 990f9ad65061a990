"""Gives a rank's exception its name: out of memory, peer lost, disk full, or honestly unknown."""

from __future__ import annotations

import os
import re

from safetensors import SafetensorError

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError, from_os_error, last_line

_PEER_WORDS = re.compile(
    r"connection (closed by peer|reset|refused|was likely closed)|broken pipe|socket timeout"
    r"|timed out waiting|application timeout caused pair closure|connectFullMesh"
    r"|remote process (exited|has terminated)|store.*(closed|timeout)|heartbeat"
    r"|nccl (communicator was aborted|remote)|ncclRemoteError|ncclSystemError",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say when the other side is gone; read in torch 2.13's sources."""
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|cannot allocate memory", re.IGNORECASE
)


_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which is written in Rust, ends a message about a full disk."""


def classify(error: BaseException, *, rank: int, step: int | None, device: str) -> TrainerError:
    """``error`` as a :class:`TrainerError`; one that already is is returned unchanged."""
    if isinstance(error, TrainerError):
        return error
    where = f"Rank {rank}" + (f" at step {step}" if step is not None else " before the first step")
    if _is_out_of_memory(error):
        return TrainerError(
            Reason.OUT_OF_MEMORY,
            f"{where} ran out of {'GPU' if device == 'cuda' else 'host'} memory.",
            "Use a smaller micro-batch, shorter sequences, a higher ZeRO stage or activation checkpointing.",
            error=last_line(error),
        )
    if _is_peer_lost(error):
        return TrainerError(
            Reason.RANK_LOST,
            f"{where} lost its connection to another rank.",
            "Look at the other ranks: this one is a victim.",
            error=last_line(error),
        )
    if isinstance(error, SafetensorError) and (number := _OS_ERROR.search(str(error))):
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, OSError):
        return from_os_error(error, f"rank {rank} was training")
    return TrainerError(
        Reason.INTERNAL_ERROR,
        f"{where} failed unexpectedly.",
        "The rank's log in the workspace has the whole traceback.",
        error=last_line(error),
    )


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_MEMORY_WORDS.search(str(error)))


def _is_peer_lost(error: BaseException) -> bool:
    import torch.distributed as dist

    if isinstance(error, dist.DistNetworkError | dist.DistStoreError | ConnectionError):
        return True
    return isinstance(error, RuntimeError) and bool(_PEER_WORDS.search(str(error)))
