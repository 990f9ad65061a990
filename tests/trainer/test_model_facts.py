"""Parameters counted from headers equal those of the loaded model, for every kind of layer naming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright_trainer.contract import LoraConfig, MethodConfig, Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.model.facts import licence, model_facts, read_config
from tunewright_trainer.model.headers import read_headers, weight_files
from tunewright_trainer.storage import ModelFolder

pytestmark = [
    # peft 0.21 still asks transformers under an old name; no use of ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # peft prepares a mixture model's fused experts for LoRA even where they are not targeted.
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
DEEPSEEK = {
    "intermediate_size": 48, "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 1,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("Llama", {**SIZES, "intermediate_size": 48, "tie_word_embeddings": True}),
    "llama, own head": ("Llama", {**SIZES, "intermediate_size": 48, "tie_word_embeddings": False}),
    "qwen2, biases": ("Qwen2", {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}),
    "phi3, fused": ("Phi3", {**SIZES, "intermediate_size": 48, "pad_token_id": 0}),
    "gpt2, Conv1D": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 64}),
    "gpt neox": ("GPTNeoX", {**SIZES, "intermediate_size": 48}),
    "opt": ("OPT", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
    "mixtral, experts": ("Mixtral", {**SIZES, "intermediate_size": 48, "num_local_experts": 2}),
    "qwen3 moe": ("Qwen3Moe", {**SIZES, "num_experts": 2, "moe_intermediate_size": 24}),
    "deepseek v3, dense and mixture layers": ("DeepseekV3", {**SIZES, **DEEPSEEK}),
}  # fmt: skip


def build(name: str, folder: Path) -> Any:
    """A random model of that kind, saved to ``folder``."""
    import transformers

    family, sizes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**sizes)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return model


def facts_of(folder: Path, method: MethodConfig) -> Any:
    model = ModelFolder(folder, "pvc://models/x", "pvc://models/x")
    return model_facts(model, read_config(model), method)


@pytest.mark.parametrize("name", MODELS)
def test_counts_equal_transformers_and_peft(name: str, tmp_path: Path) -> None:
    import peft

    model = build(name, tmp_path)
    lora = LoraConfig(rank=3)
    facts = facts_of(tmp_path, MethodConfig(type="LoRA", lora=lora))
    assert facts.parameters == model.num_parameters()
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=3, target_modules="all-linear", fan_in_fan_out=name.startswith("gpt2")
        ),
    )
    assert facts.trainable_parameters == adapted.get_nb_trainable_parameters()[0]
    assert facts.hidden_size == 32
    assert facts.layers == 2
    assert facts.vocabulary_size == 96
    assert facts.dtype == "float32"
    assert facts_of(tmp_path, MethodConfig(type="Full")).trainable_parameters == facts.parameters


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama, tied", ["q_proj", "v_proj"]),
        ("phi3, fused", ["qkv_proj", "layers.1.mlp.down_proj"]),
        ("llama, own head", ["lm_head", "o_proj"]),
        ("gpt2, Conv1D", ["c_attn"]),
    ],
)
def test_named_targets_match_as_peft_matches_them(name: str, targets: list[str], tmp_path: Path) -> None:
    import peft

    model = build(name, tmp_path)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=targets, fan_in_fan_out=name.startswith("gpt2")
    )
    expected = peft.get_peft_model(model, config).get_nb_trainable_parameters()[0]
    method = MethodConfig(type="LoRA", lora=LoraConfig(rank=2, target_modules=targets))
    assert facts_of(tmp_path, method).trainable_parameters == expected


def test_half_of_a_fused_pair_is_refused_before_peft_would(tmp_path: Path) -> None:
    build("qwen3 moe", tmp_path)
    method = MethodConfig(type="LoRA", lora=LoraConfig(target_modules=["q_proj", "gate_proj"]))
    with pytest.raises(TrainerError, match="is fused with 'up_proj'"):
        facts_of(tmp_path, method)


def test_sharded_weights_are_read_through_their_index(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(weight_files(tmp_path)) > 1
    assert read_headers(tmp_path).keys() == read_headers(tiny_model).keys()
    weight_files(tmp_path)[1].unlink()
    with pytest.raises(TrainerError, match="lacks 1 of") as refused:
        read_headers(tmp_path)
    assert refused.value.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "is not a safetensors file", id="empty"),
        pytest.param(b"\xff" * 64, "its header claims", id="absurd length"),
        pytest.param((9).to_bytes(8, "little") + b"{'a': 1}x", "can't be read", id="not JSON"),
        pytest.param(
            (68).to_bytes(8, "little")
            + b'{"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 4]}}    ',
            "its shape needs another number",
            id="shape and bytes differ",
        ),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(TrainerError) as refused:
        read_headers(tmp_path)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\ntags: [x]\n---\n# M"}, "apache-2.0"),
        ({"README.md": "# no front matter\nlicense: mit"}, None),
        ({"LICENSE": "\n   Apache License\n  Version 2.0"}, "apache-2.0"),
        ({"LICENSE.txt": "Some own terms"}, "LICENSE.txt"),
        ({}, None),
    ],
)
def test_the_licence_comes_from_the_card_or_the_licence_file(
    tmp_path: Path, files: dict[str, str], expected: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence(tmp_path) == expected


def test_a_nested_text_config_gives_the_figures(tmp_path: Path, tiny_model: Path) -> None:
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    nested = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "text_config": config}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert facts_of(tmp_path, MethodConfig()) == facts_of(tiny_model, MethodConfig())
