"""Tensors' names, shapes and sizes from the headers of safetensors files, without reading the tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.files import read_json

HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit."""

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its header describes it. ``start`` and ``end`` are bytes from the file's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file by name.

    Raises ModelInvalid if it is no safetensors file or is cut off (a torn download).
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_LIMIT_BYTES, size_bytes - 8):
            raise _not_safetensors(path, f"its header claims {length:,} bytes")
        try:
            header = json.loads(file.read(length))
            tensors = {
                name: _tensor(name, entry, 8 + length)
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _not_safetensors(path, f"its header can't be read ({error})") from error
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if end > size_bytes:
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"{path.name} is cut off: it has {size_bytes:,} of {end:,} bytes.",
            "Copy or download the model again.",
        )
    return tensors


def _tensor(name: str, entry: dict[str, object], data_start: int) -> TensorInfo:
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or not isinstance(dtype, str):
        raise TypeError(f"tensor {name}")
    begin, end = (int(offset) for offset in offsets)
    tensor = TensorInfo(name, dtype, tuple(int(size) for size in shape), data_start + begin, data_start + end)
    if dtype in DTYPE_BYTES and tensor.elements * DTYPE_BYTES[dtype] != end - begin:
        raise ValueError(f"tensor {name} has {end - begin} bytes, its shape needs another number")
    return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a model: those of the index if there is one.

    Raises ModelInvalid if there are none, or if the index names files that aren't there.
    """
    index_path = folder / "model.safetensors.index.json"
    index = read_json(index_path)
    if isinstance(index, dict) and isinstance(index.get("weight_map"), dict):
        names = sorted({str(name) for name in index["weight_map"].values()})
        outside = [name for name in names if "/" in name or name.startswith(".")]
        missing = outside or [name for name in names if not (folder / name).is_file()]
        if missing:
            raise TrainerError(
                Reason.MODEL_INVALID,
                f"The model lacks {len(missing)} of {len(names)} weight files, {missing[0]} among them.",
                "Copy or download the model again.",
            )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    raise TrainerError(
        Reason.MODEL_INVALID,
        f"The model has no safetensors weights (found: {', '.join(found[:8]) or 'nothing'}).",
        "Save it with save_pretrained(folder), which writes model.safetensors; pickled weights are not read.",
    )


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a model by name."""
    tensors: dict[str, TensorInfo] = {}
    for path in weight_files(folder):
        tensors |= read_header(path)
    return tensors


def _not_safetensors(path: Path, why: str) -> TrainerError:
    return TrainerError(
        Reason.MODEL_INVALID,
        f"{path.name} is not a safetensors file: {why}.",
        "Copy or download the model again.",
    )
