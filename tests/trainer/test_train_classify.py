"""Errors get the name that tells a person, and the operator, what to do."""

from __future__ import annotations

import errno

import pytest
import torch
import torch.distributed as dist

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.train.classify import classify


def named(error: BaseException, device: str = "cpu") -> TrainerError:
    return classify(error, rank=1, step=7, device=device)


def test_a_real_allocation_failure_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58, dtype=torch.uint8)
    error = named(caught.value)
    assert error.reason == Reason.OUT_OF_MEMORY
    assert "Rank 1 at step 7 ran out of host memory" in error.message


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_by_type(error: BaseException) -> None:
    assert named(error, "cuda").reason == Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        dist.DistNetworkError("The client socket has timed out"),
        RuntimeError(
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]"
        ),
        RuntimeError("[..] Timed out waiting 1800000ms for recv operation to complete"),
        RuntimeError("Application timeout caused pair closure"),
        dist.DistBackendError("NCCL communicator was aborted on rank 1. ncclRemoteError: remote"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
    ids=["store", "gloo-closed", "gloo-timeout", "gloo-pair", "nccl", "pipe"],
)
def test_a_lost_peer_makes_a_victim(error: BaseException) -> None:
    assert named(error).reason == Reason.RANK_LOST


def test_a_full_disk_has_its_name() -> None:
    assert named(OSError(errno.ENOSPC, "No space left on device")).reason == Reason.DISK_FULL


def test_a_full_disk_told_by_safetensors_has_its_name_too() -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with pytest.raises(SafetensorError) as caught:
        save_file({"a": torch.zeros(1 << 20)}, "/proc/nowhere/model.safetensors")
    assert named(caught.value).reason == Reason.STORAGE_FAILED
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert named(full).reason == Reason.DISK_FULL


def test_what_is_unknown_stays_unknown_and_keeps_its_last_line() -> None:
    error = named(ValueError("first\nthe last line"))
    assert error.reason == Reason.INTERNAL_ERROR
    assert error.error == "ValueError: the last line"


def test_a_named_error_is_not_renamed() -> None:
    original = TrainerError(Reason.NAN_LOSS, "x")
    assert named(original) is original
