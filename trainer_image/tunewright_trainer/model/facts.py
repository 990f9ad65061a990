"""ModelFacts: what the planner needs to know of a model; refuses models that can't be trained here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright_trainer.contract import MethodConfig, ModelFacts, Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.files import read_json
from tunewright_trainer.model.headers import TensorInfo, read_headers, weight_files
from tunewright_trainer.model.trainable import count_parameters, count_trainable
from tunewright_trainer.storage.base import ModelFolder

_GENERATES = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|LMHead)$")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}

# Where configs of different families keep the same figure, commonest first.
_KEYS = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "attention_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "vocabulary_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"),
}
_LICENCE_NAMES = ("LICENSE*", "LICENCE*")
_LICENCE_MARKS = {
    "Apache License": "apache-2.0", "MIT License": "mit", "LLAMA 3": "llama3", "Llama 3": "llama3",
    "GEMMA": "gemma", "BSD 3-Clause": "bsd-3-clause",
}  # fmt: skip


def read_config(folder: ModelFolder) -> dict[str, Any]:
    """config.json of a model, checked to be one of a model that generates text and can be trained.

    Raises ModelInvalid.
    """
    config = read_json(folder.path / "config.json")
    if not isinstance(config, dict):
        exists = (folder.path / "config.json").exists()
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"{folder.uri} has {'a config.json that is not JSON' if exists else 'no config.json'}.",
            "Set model.source to a folder as save_pretrained writes it.",
        )
    architecture = _architecture(config)
    if not _GENERATES.search(architecture):
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"{folder.uri} is a {architecture or 'nameless model'}, which does not generate text.",
            "Use a model whose architecture ends in ForCausalLM.",
        )
    if quantisation := config.get("quantization_config"):
        how = quantisation.get("quant_method", "unknown method") if isinstance(quantisation, dict) else "?"
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"{folder.uri} is quantised ({how}).",
            "Use the model's unquantised weights.",
        )
    _refuse_unknown_type(config, folder)
    return config


def model_facts(folder: ModelFolder, config: Mapping[str, Any], method: MethodConfig) -> ModelFacts:
    """Facts of a model whose weights are there.

    Raises ModelInvalid for weights that are missing or torn, a figure that config.json lacks, and target
    modules that match nothing.
    """
    tensors = read_headers(folder.path)
    text = text_config(config)
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
    figures = {name: _figure(text, name, keys, folder) for name, keys in _KEYS.items()}
    return ModelFacts(
        architecture=_architecture(config),
        parameters=count_parameters(tensors, tied_embeddings=tied),
        trainable_parameters=count_trainable(tensors, method, tied_embeddings=tied),
        key_value_heads=int(text.get("num_key_value_heads") or figures["attention_heads"]),
        intermediate_size=int(
            text.get("intermediate_size") or text.get("n_inner") or 4 * figures["hidden_size"]
        ),
        tied_embeddings=tied,
        dtype=_dtype(tensors),
        revision=folder.revision,
        size_bytes=sum(path.stat().st_size for path in weight_files(folder.path)),
        licence=licence(folder.path),
        **figures,
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model (multimodal models nest it)."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def mixes_packed_documents(config: Mapping[str, Any]) -> bool:
    """Whether the model lets packed documents see each other.

    Layers that carry a state along (linear attention, state-space) ignore position ids that restart, so
    that one document leaks into the next without an error.
    """
    text = text_config(config)
    layer_types = text.get("layer_types") or text.get("layers_block_type") or []
    if any(re.search(r"linear|mamba|recurrent|conv", str(kind)) for kind in layer_types):
        return True
    model_type = str(text.get("model_type", config.get("model_type", "")))
    return bool(
        re.search(
            r"mamba|rwkv|recurrent|jamba|bamba|zamba|qwen3_next|nemotron_h|falcon_h1|lfm2|xlstm", model_type
        )
    )


def licence(folder: Path) -> str | None:
    """The model's licence: from the card's front matter, else from the first lines of a licence file."""
    card = folder / "README.md"
    if card.is_file():
        front = re.match(r"^---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        found = front and re.search(r"^license:\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE)
        if found:
            return found[1]
    for pattern in _LICENCE_NAMES:
        for path in sorted(folder.glob(pattern)):
            head = path.read_text(encoding="utf-8", errors="replace")[:2000]
            return next((name for mark, name in _LICENCE_MARKS.items() if mark in head), path.name)
    return None


def _architecture(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else ""


def _figure(text: Mapping[str, Any], name: str, keys: tuple[str, ...], folder: ModelFolder) -> int:
    for key in keys:
        value = text.get(key)
        if isinstance(value, int) and value > 0:
            return value
    if name == "max_position_embeddings":
        return 1 << 20  # models without a limit (ALiBi, state-space) leave it out
    raise TrainerError(
        Reason.MODEL_INVALID,
        f"config.json of {folder.uri} gives no {keys[0]}.",
        "Use a complete model folder.",
    )


def _dtype(tensors: Mapping[str, TensorInfo]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.elements
    commonest = sizes.most_common(1)[0][0] if sizes else ""
    return _DTYPES.get(commonest, commonest.lower())


def _refuse_unknown_type(config: Mapping[str, Any], folder: ModelFolder) -> None:
    # This table is all of transformers that is imported here: half a second, and no torch.
    from transformers import __version__
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

    model_type = config.get("model_type")
    if model_type in CONFIG_MAPPING_NAMES:
        return
    own_code = " and needs code of its own, which is not run" if "auto_map" in config else ""
    raise TrainerError(
        Reason.MODEL_INVALID,
        f"{folder.uri} is of type {model_type!r}, which transformers {__version__} does not know{own_code}.",
        "Use a model that transformers supports without trust_remote_code.",
    )
