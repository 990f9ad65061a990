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
# Mixture models. transformers fuses all experts of a layer into one tensor, gate and up into one as well;
# peft (utils/transformers_weight_conversion.py, 0.21) puts LoRA of twice the rank beside that, also beside
# the router, and then passes over dense layers whose parts have the experts' names.
_EXPERT = re.compile(r"\.experts\.\d+\.(?P<part>\w+)$")
_GATE_AND_UP = {"gate_proj": "up_proj", "up_proj": "gate_proj", "w1": "w3", "w3": "w1"}
_EXPERT_PARTS = {*_GATE_AND_UP, "down_proj", "w2"}
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|e_score_correction_bias|masked_bias|\.attn\.bias)$")


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
    return sum(lora.rank * _in_plus_out(name, t) for name, t in targeted(tensors, lora).items())


def targeted(tensors: Mapping[str, TensorInfo], lora: LoraConfig) -> dict[str, TensorInfo]:
    """The weights that LoRA is put beside, by module name.

    Matches as peft does: a target is a module's whole name or its end after a dot; ``all-linear`` is
    every linear module but the output head.
    """
    modules = _modules(tensors)
    linear = {name: t for name, t in modules.items() if not _EMBEDDING.search(name)}
    if ALL_LINEAR in lora.target_modules:
        return {name: t for name, t in linear.items() if not _OUTPUT_HEAD.search(name)}
    chosen: dict[str, TensorInfo] = {}
    for target in lora.target_modules:
        matches = {n: t for n, t in modules.items() if n == target or n.endswith(f".{target}")}
        if not matches:
            raise _no_such_module(target, linear)
        _refuse_half_of_a_pair(target, lora, matches)
        chosen |= matches
    return chosen


def _modules(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Weights of two dimensions by module name, as peft will find them."""
    modules = {
        name.removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor.shape) == 2
    }
    if not any(_EXPERT.search(name) for name in modules):
        return modules
    return {
        name: tensor
        for name, tensor in modules.items()
        if _EXPERT.search(name) or name.rsplit(".", 1)[-1] not in _EXPERT_PARTS
    }


def _in_plus_out(module: str, tensor: TensorInfo) -> int:
    """Rows and columns that LoRA adds at rank 1."""
    expert = _EXPERT.search(module)
    if expert and expert["part"] in _GATE_AND_UP:
        # Its half of the fused pair's: rank 2r x (in + 2 out) for the two together.
        return tensor.shape[1] + 2 * tensor.shape[0]
    return sum(tensor.shape)


def _refuse_half_of_a_pair(target: str, lora: LoraConfig, matches: Mapping[str, TensorInfo]) -> None:
    other = _GATE_AND_UP.get(target)
    if other is None or other in lora.target_modules or not any(_EXPERT.search(name) for name in matches):
        return
    raise TrainerError(
        Reason.MODEL_INVALID,
        f"The target module {target!r} is fused with {other!r} in this mixture model's experts.",
        "Put both or neither into method.lora.targetModules.",
    )


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
