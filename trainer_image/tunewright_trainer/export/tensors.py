"""Checks that safetensors files hold weights worth keeping: there, finite, and an adapter that learned.

Read with numpy in blocks, without torch. numpy has no bfloat16: its bits are looked at directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.model.headers import TensorInfo, read_header

BLOCK_ELEMENTS = 1 << 22
_NUMPY_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_BF16_EXPONENT, _BF16_MAGNITUDE = 0x7F80, 0x7FFF


@dataclass(frozen=True)
class TensorState:
    finite: bool
    zero: bool


def check_tensors(paths: list[Path], *, adapter: bool) -> int:
    """Check all tensors of the files; returns how many there are.

    Raises DeadAdapter if there is nothing in them or (``adapter``) if every LoRA B matrix is zero, NaNLoss
    for a weight that isn't finite, ModelInvalid for a file that can't be read.
    """
    count = 0
    b_matrices = b_zero = 0
    for path in paths:
        for tensor in read_header(path).values():
            count += 1
            if tensor.elements == 0:
                raise _dead(f"{tensor.name} is empty")
            state = tensor_state(path, tensor)
            if not state.finite:
                raise TrainerError(
                    Reason.NAN_LOSS,
                    f"The weight {tensor.name} in {path.name} is not finite.",
                    "Lower the learning rate, or use precision BF16 instead of FP16.",
                )
            if "lora_B" in tensor.name:
                b_matrices += 1
                b_zero += state.zero
    if count == 0:
        raise _dead("it holds no tensor")
    if adapter and b_zero == b_matrices:
        raise _dead(f"all {b_matrices} B matrices are zero")
    return count


def tensor_state(path: Path, tensor: TensorInfo) -> TensorState:
    """Whether a tensor's elements are all finite, and all zero. Integer tensors are always finite."""
    finite = zero = True
    for block in _blocks(path, tensor):
        if tensor.dtype == "BF16":
            bits = block.view(np.uint16)
            finite = finite and bool(((bits & _BF16_EXPONENT) != _BF16_EXPONENT).all())
            zero = zero and not bool((bits & _BF16_MAGNITUDE).any())
        else:
            finite = finite and bool(np.isfinite(block).all())
            zero = zero and not bool(block.any())
    return TensorState(finite, zero)


def _blocks(path: Path, tensor: TensorInfo) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(_NUMPY_DTYPES.get(tensor.dtype, "u1"))
    elements = (tensor.end - tensor.start) // dtype.itemsize
    for first in range(0, elements, BLOCK_ELEMENTS):
        wanted = min(BLOCK_ELEMENTS, elements - first)
        offset = tensor.start + first * dtype.itemsize
        yield np.fromfile(path, dtype=dtype, count=wanted, offset=offset)


def _dead(why: str) -> TrainerError:
    return TrainerError(
        Reason.DEAD_ADAPTER,
        f"The finished weights hold nothing that was learned: {why}.",
        "Check the learning rate, the number of steps, and that the data has tokens that carry loss.",
    )
