"""Compares a base model with a tuned adapter: held-out loss of both, and their answers to one question.

Usage: python -m hack.compare_models BASE ADAPTER HELD_OUT_JSONL; the last line of output is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

ROWS = 16
LONGEST_TOKENS = 256
ANSWER_TOKENS = 48


def compare(base: Path, adapter: Path, held_out: Path) -> dict[str, Any]:
    """Losses (mean over answer tokens of ROWS rows) and answers of the base and of the tuned model."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, adapter).eval()
    rows = [json.loads(line)["messages"] for line in held_out.read_text(encoding="utf-8").splitlines()][:ROWS]
    question = rows[0][:1]
    with torch.no_grad():
        with tuned.disable_adapter():
            base_loss, base_answer = _loss(tuned, tokenizer, rows), _answer(tuned, tokenizer, question)
        tuned_loss, tuned_answer = _loss(tuned, tokenizer, rows), _answer(tuned, tokenizer, question)
    return {
        "question": question[0]["content"],
        "base_answer": base_answer,
        "tuned_answer": tuned_answer,
        "base_loss": base_loss,
        "tuned_loss": tuned_loss,
    }


def _ids(tokenizer: Any, messages: list[dict[str, str]], *, prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _loss(model: Any, tokenizer: Any, rows: list[list[dict[str, str]]]) -> float:
    total, count = 0.0, 0
    for messages in rows:
        prompt = _ids(tokenizer, messages[:-1], prompt=True)
        ids = _ids(tokenizer, messages, prompt=False)[:LONGEST_TOKENS]
        labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])[:, : len(ids)]
        answer_tokens = int((labels != -100).sum())
        total += float(model(input_ids=torch.tensor([ids]), labels=labels).loss) * answer_tokens
        count += answer_tokens
    return total / count


def _answer(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    ids = torch.tensor([_ids(tokenizer, messages, prompt=True)])
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)).strip()


if __name__ == "__main__":
    print(json.dumps(compare(*(Path(argument) for argument in sys.argv[1:4]))))
