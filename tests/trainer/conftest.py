"""What all trainer tests share: a tiny model, real chat data, and a job's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hack.test_materials import FaqFiles, faq_messages, make_tiny_model
from tests.trainer.jobs import JobFolder

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
