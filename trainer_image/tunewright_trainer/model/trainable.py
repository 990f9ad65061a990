"""How many parameters a method trains, and whether its target modules exist: from tensor shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunewright_trainer.contract import LoraConfig, MethodConfig, Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.model.headers import TensorInfo

ALL_LINEAR = "all-linear"

_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|word_embeddings\w*|embed_in)$")
_OUTPUT_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)$")
# Routers and experts of mixture models are plain parameters once loaded (experts fused into one tensor),
# not linear modules, so that LoRA does not find them.
_NOT_A_MODULE = re.compile(r"(\.experts\.|\.mlp\.gate$|\.block_sparse_moe\.gate$|\.router(\.|$))")
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|masked_bias|\.attn\.bias)$")


def weights_of(tensors: Mapping[str, TensorInfo], *, tied_embeddings: bool) -> dict[str, TensorInfo]:
    """The tensors that are parameters: no buffers, and a tied output head not counted a second time."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not _is_buffer(tensor)
        and not (tied_embeddings and _OUTPUT_HEAD.search(name.removesuffix(".weight")))
    }


def count_parameters(tensors: Mapping[str, TensorInfo], *, tied_embeddings: bool) -> int:
    """Parameters of the whole model."""
    return sum(t.elements for t in weights_of(tensors, tied_embeddings=tied_embeddings).values())


def count_trainable(tensors: Mapping[str, TensorInfo], method: MethodConfig, *, tied_embeddings: bool) -> int:
    """Parameters that ``method`` trains.

    LoRA puts two matrices beside each targeted one, of rank x in and out x rank: rank x (in + out).
    Raises ModelInvalid if a target module matches nothing.
    """
    if method.type == "Full":
        return count_parameters(tensors, tied_embeddings=tied_embeddings)
    lora = method.lora or LoraConfig()
    return sum(lora.rank * sum(tensor.shape) for tensor in targeted(tensors, lora).values())


def targeted(tensors: Mapping[str, TensorInfo], lora: LoraConfig) -> dict[str, TensorInfo]:
    """The weights that LoRA is put beside, by module name.

    Matches as peft does: a target is a module's whole name or its end after a dot; ``all-linear`` is
    every linear module but the output head.
    """
    modules = {
        name.removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor.shape) == 2 and not _NOT_A_MODULE.search(name[:-7])
    }
    linear = {name: t for name, t in modules.items() if not _EMBEDDING.search(name)}
    if ALL_LINEAR in lora.target_modules:
        return {name: t for name, t in linear.items() if not _OUTPUT_HEAD.search(name)}
    chosen: dict[str, TensorInfo] = {}
    for target in lora.target_modules:
        matches = {n: t for n, t in modules.items() if n == target or n.endswith(f".{target}")}
        if not matches:
            raise _no_such_module(target, linear)
        chosen |= matches
    return chosen


def _no_such_module(target: str, linear: Mapping[str, TensorInfo]) -> TrainerError:
    names = sorted({name.rsplit(".", 1)[-1] for name in linear})
    return TrainerError(
        Reason.MODEL_INVALID,
        f"The target module {target!r} matches nothing in this model; its linear modules are: "
        f"{', '.join(names)}.",
        f"Use names from that list in method.lora.targetModules, or [{ALL_LINEAR}].",
    )


def _is_buffer(tensor: TensorInfo) -> bool:
    # GPT-2 keeps its causal mask as h.N.attn.bias, four-dimensional; a true bias has one dimension.
    return bool(_BUFFER.search(tensor.name)) and not (
        tensor.name.endswith(".attn.bias") and len(tensor.shape) == 1
    )
