"""Gets trained weights out of a sharded model, whole, on rank 0, and checks that they were trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save
from torch import nn

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.train.consensus import Gang


def gathered(model: nn.Module, gang: Gang, *, trainable_only: bool) -> dict[str, torch.Tensor]:
    """Parameters by name, on rank 0's host memory; empty on the other ranks. Collective under ZeRO-3.

    One parameter at a time, so that no GPU ever holds more than the largest one on top of its shard.
    """
    state = {}
    for name, parameter in _parameters(model, trainable_only):
        with _whole(parameter):
            if gang.rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    return state


def _parameters(model: nn.Module, trainable_only: bool) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not trainable_only:
            yield name, parameter


def frozen_names(model: nn.Module) -> list[str]:
    """Names of all weights that are not trained; a tied weight has several."""
    return [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    ]


def _whole(parameter: nn.Parameter) -> AbstractContextManager[Any]:
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=None)
    return context


def counts(model: nn.Module) -> tuple[int, int]:
    """Trainable and total number of parameters; under ZeRO-3 of the whole model, not of this shard."""
    trainable = total = 0
    for parameter in model.parameters():
        size = int(getattr(parameter, "ds_numel", parameter.numel()))
        total += size
        trainable += size if parameter.requires_grad else 0
    return trainable, total


def write_adapter(
    model: PeftModel, state: dict[str, torch.Tensor], folder: Path, base: str | None = None
) -> None:
    """Write adapter_model.safetensors and adapter_config.json from the gathered ``state``.

    ``base`` names the base model in adapter_config.json: a URI, never a path of this pod.
    """
    tensors = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    # Not by save_file: a full disk should be an OSError, and the file readable by the export pod's user.
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    adapter = model.peft_config["default"]
    was = adapter.inference_mode, adapter.base_model_name_or_path
    adapter.inference_mode, adapter.base_model_name_or_path = True, base
    adapter.save_pretrained(str(folder))
    adapter.inference_mode, adapter.base_model_name_or_path = was


def check_adapter(tensors: dict[str, torch.Tensor], step: int) -> None:
    """Raise DeadAdapter if the adapter holds nothing, or if no B matrix ever moved from zero."""
    empty = sorted(name for name, tensor in tensors.items() if tensor.numel() == 0)
    moved = [name for name, tensor in tensors.items() if "lora_B" in name and bool(tensor.any())]
    if not tensors or empty or not moved:
        what = f"{empty[0]} is empty" if empty else "every B matrix is still zero"
        raise TrainerError(
            Reason.DEAD_ADAPTER,
            f"The adapter learned nothing in {step} steps: {what}.",
            "Check the learning rate, the warm-up and that the data has tokens that carry loss.",
        )


def check_finite(tensors: dict[str, torch.Tensor], step: int) -> None:
    """Raise NaNLoss if a weight is not a finite number."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainerError(
                Reason.NAN_LOSS,
                f"The weight {name} is not finite after {step} steps.",
                "Lower the learning rate or use precision BF16 instead of FP16.",
            )
