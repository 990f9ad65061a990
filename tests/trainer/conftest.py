"""What all trainer tests share: a tiny model, real chat data, and a job's folders."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from hack.test_materials import FaqFiles, faq_messages, make_tiny_model
from tests.trainer.jobs import JobFolder, finish
from tunewright_trainer.contract import TrainerConfig

# Before anything imports torch: ranks and tests share few cores, and spinning threads cost tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Llama with a tokenizer and a ChatML template. Read only: copy it to change it."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def faq(tmp_path_factory: pytest.TempPathFactory) -> FaqFiles:
    """Real questions and answers as chats: 452 to train on, 51 held out. Read only."""
    return faq_messages(tmp_path_factory.mktemp("faq"))


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path, faq: FaqFiles) -> JobFolder:
    """A job's claims with the tiny model and the first 40 rows of the chat data in them."""
    folder = JobFolder(tmp_path / "job").make()
    make_tiny_model(folder.root / "models" / "tiny")
    rows = faq.train.read_text(encoding="utf-8").splitlines()
    folder.write_rows(rows[:40])
    folder.write_rows(faq.held_out.read_text(encoding="utf-8").splitlines()[:10], "held-out.jsonl")
    return folder


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A real peft adapter of the tiny model, in bf16, whose B matrices are not zero. Read only."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    with warnings.catch_warnings():
        # peft 0.21 still asks transformers under an old name; no use of ours.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = peft.get_peft_model(
            base, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
        )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink()
    return folder


@pytest.fixture
def finished(job: JobFolder, adapter: Path) -> TrainerConfig:
    """The configuration of a job that was prepared and has finished training: export is next."""
    from tunewright_trainer.prepare import prepare

    facts = prepare(job.config(), job.locations)
    training = {
        "max_steps": 20, "learning_rate": 2e-4, "precision": "BF16",
        "global_batch": 8, "micro_batch": 1, "gradient_accumulation": 4,
    }  # fmt: skip
    config = job.config(prepared_key=facts.prepared_key, training=training, deepspeed={"zero_stage": 2})
    finish(job, config, adapter)
    return config
