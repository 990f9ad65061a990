"""Prepare as a whole: what it leaves, what it finds again, and which rows it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hack.test_materials import make_tiny_model
from tests.trainer.jobs import JobFolder, chat, edit_json
from tunewright_trainer.contract import ExitCode, Facts, Failure, Reason
from tunewright_trainer.data import prepared
from tunewright_trainer.data.shards import ShardReader
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.prepare import prepare


def documents(folder: Path, name: str = "train.arrow") -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and labels of each document in a shard, told apart by positions that restart."""
    shard = ShardReader(folder / name)
    found = []
    for number in range(len(shard)):
        row = shard[number]
        starts = [*np.flatnonzero(row["position_ids"] == 0).tolist(), len(row["input_ids"])]
        for begin, end in pairwise(starts):
            assert row["position_ids"][begin:end].tolist() == list(range(end - begin))
            found.append(
                (tuple(row["input_ids"][begin:end].tolist()), tuple(row["labels"][begin:end].tolist()))
            )
    shard.close()
    return found


def prepared_folder(job: JobFolder, facts: Facts) -> Path:
    return job.workspace(job.config()).prepared(facts.prepared_key)


def test_packed_documents_are_the_chats_as_transformers_tokenises_them(job: JobFolder) -> None:
    from transformers import AutoTokenizer

    facts = prepare(job.config(dataset={"max_sequence_length": 512}), job.locations)
    tokenizer: Any = AutoTokenizer.from_pretrained(job.root / "models" / "tiny")
    rows = [json.loads(line) for line in (job.data / "train.jsonl").read_text().splitlines()]
    expected = Counter(
        tuple(tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]) for row in rows
    )
    found = documents(prepared_folder(job, facts))
    assert Counter(ids for ids, _ in found) == expected
    assert facts.data.tokens == sum(len(ids) for ids, _ in found)
    assert facts.data.loss_tokens == sum(label != -100 for _, labels in found for label in labels)
    assert facts.data.rows == len(rows)
    assert facts.data.packed
    assert facts.data.sequences < len(rows) / 2
    assert facts.data.sequence_length <= 512


def test_only_the_answer_carries_loss(job: JobFolder) -> None:
    from transformers import AutoTokenizer

    job.write_rows([chat("Do I need a permit?", "Yes, always.")])
    facts = prepare(job.config(), job.locations)
    [(ids, labels)] = documents(prepared_folder(job, facts))
    tokenizer = AutoTokenizer.from_pretrained(job.root / "models" / "tiny")
    learned = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    assert tokenizer.decode(learned) == "Yes, always.<|im_end|>"
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))


def test_the_command_answers_with_facts_shows_an_example_and_imports_no_torch(job: JobFolder) -> None:
    config = job.config()
    program = (
        "import sys; from tunewright_trainer.__main__ import main; code = main(['prepare']);"
        "print('torch imported:', 'torch' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=job.environment(config),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert "torch imported: False" in done.stdout
    answer = Facts.model_validate_json((job.root / "termination-log").read_text())
    assert answer == prepare(config, job.locations)
    first = json.loads((job.data / "train.jsonl").read_text().splitlines()[0])["messages"]
    assert f"{first[0]['content']}<|im_end|>\n<|im_start|>assistant\n«{first[1]['content']}" in done.stdout
    report = json.loads((prepared_folder(job, answer) / "report.json").read_text())
    assert report["masked_share"] == pytest.approx(1 - answer.data.loss_tokens / answer.data.tokens, abs=1e-4)


def test_a_second_run_uses_the_same_folder_and_a_damaged_one_is_made_anew(
    job: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(job.config(), job.locations)
    shard = prepared_folder(job, first) / "train.arrow"
    before, made_at = shard.read_bytes(), shard.stat().st_mtime_ns
    capsys.readouterr()
    assert prepare(job.config(job_uid="another"), job.locations) == first
    assert "used again" in capsys.readouterr().out
    assert shard.stat().st_mtime_ns == made_at
    shard.write_bytes(before[:-100])
    assert prepare(job.config(), job.locations) == first
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.parent.iterdir()] == [first.prepared_key]


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param({"max_sequence_length": 120}, id="sequence length"),
        pytest.param({"packing": "Never"}, id="packing"),
        pytest.param({"loss_on": "All"}, id="loss"),
        pytest.param({"validation_fraction": 0.2}, id="split"),
        pytest.param({"chat_template": "{{ messages[0].content }}{{ messages[1].content }}"}, id="template"),
        pytest.param(
            {"train": [{"source": {"uri": "pvc://data/train.jsonl"}, "max_rows": 5}]}, id="rows taken"
        ),
        pytest.param({"train": [{"source": {"uri": "pvc://data/held-out.jsonl"}}]}, id="data"),
    ],
)
def test_another_setting_is_another_key(job: JobFolder, dataset: dict[str, Any]) -> None:
    if "chat_template" in dataset:
        dataset = dataset | {"loss_on": "All"}
    first = prepare(job.config(), job.locations)
    other = prepare(job.config(dataset=dataset), job.locations)
    assert other.prepared_key != first.prepared_key
    assert other.data.fingerprint != first.data.fingerprint


def test_what_does_not_touch_tokens_keeps_the_key(job: JobFolder) -> None:
    first = prepare(job.config(), job.locations)
    other = prepare(job.config(method={"type": "Full"}, job_uid="x", spec_hash="bbbb"), job.locations)
    assert other.prepared_key == first.prepared_key
    assert other.model.trainable_parameters == other.model.parameters


def test_validation_fraction_splits_the_same_way_each_time(job: JobFolder) -> None:
    split = {"validation_fraction": 0.25, "packing": "Never", "max_sequence_length": 512}
    facts = prepare(job.config(dataset=split), job.locations)
    folder = prepared_folder(job, facts)
    train, held_out = documents(folder), documents(folder, "validation.arrow")
    assert (facts.data.rows, facts.data.validation_rows) == (30, 10) == (len(train), len(held_out))
    assert not set(train) & set(held_out)
    shutil.rmtree(folder)
    prepare(job.config(dataset=split), job.locations)
    assert documents(folder, "validation.arrow") == held_out
    other = prepare(job.config(dataset=split | {"split_seed": 7}), job.locations)
    assert documents(prepared_folder(job, other), "validation.arrow") != held_out


def test_validation_files_are_prepared_too_and_leaks_are_told(job: JobFolder) -> None:
    leaked = json.loads((job.data / "train.jsonl").read_text().splitlines()[3])
    job.write_rows([leaked, chat("Something new?", "Indeed.")], "validation.jsonl")
    dataset = {"validation": [{"source": {"uri": "pvc://data/validation.jsonl"}}]}
    facts = prepare(job.config(dataset=dataset), job.locations)
    assert facts.data.validation_rows == 2
    assert len(documents(prepared_folder(job, facts), "validation.arrow")) == 2
    assert "1 row of the validation data also in the training data." in facts.data.warnings


def test_without_packing_each_row_is_a_document(job: JobFolder) -> None:
    facts = prepare(job.config(dataset={"packing": "Never"}), job.locations)
    shard = ShardReader(prepared_folder(job, facts) / "train.arrow")
    assert len(shard) == facts.data.sequences == facts.data.rows == 40
    assert not facts.data.packed


def test_a_sequence_length_beyond_the_model_is_lowered_with_a_warning(job: JobFolder) -> None:
    make_tiny_model(job.root / "models" / "tiny", max_position_embeddings=96)
    facts = prepare(job.config(dataset={"max_sequence_length": 4096}), job.locations)
    assert facts.data.sequence_length <= 96
    assert any("the model takes 96 tokens" in warning for warning in facts.data.warnings)
    assert facts.data.truncated_rows > 0


def test_packing_is_off_for_a_model_that_carries_state_and_refused_if_asked_for(job: JobFolder) -> None:
    edit_json(job.root / "models/tiny/config.json", layer_types=["linear_attention", "full_attention"])
    facts = prepare(job.config(), job.locations)
    assert not facts.data.packed
    assert any("Packing is off" in warning for warning in facts.data.warnings)
    with pytest.raises(TrainerError, match="carries state") as refused:
        prepare(job.config(dataset={"packing": "Always"}), job.locations)
    assert refused.value.reason is Reason.MODEL_INVALID


GOOD = [chat(f"question {n}", f"answer {n}") for n in range(80)]


def with_row(number: int, row: Any) -> list[Any]:
    """GOOD with ``row`` at line ``number`` (from 1)."""
    return [*GOOD[: number - 1], row, *GOOD[number:]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param(with_row(71, '{"messages": [}'), ["line 71: not valid JSON", "1 of 80 rows"], id="JSON"),
        pytest.param([], ["train.jsonl: the file is empty"], id="empty file"),
        pytest.param(
            with_row(5, {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}),
            ["line 5: turn 2, after user, is user; expected assistant"],
            id="role order",
        ),
        pytest.param(with_row(9, chat("a", " ")), ["line 9: turn 2 (assistant) is empty"], id="empty answer"),
        pytest.param(with_row(3, chat("a", "b", "c")), ["line 3: the last turn is user"], id="no answer"),
        pytest.param(
            with_row(2, {"text": "x"}), ["line 2: no column 'messages' (columns: text)"], id="column"
        ),
        pytest.param(with_row(4, "[1, 2]"), ["line 4: a JSON object is expected, this is a list"], id="list"),
        pytest.param(
            [{"q": 1, "a": 2}], ["line 1: no known format: its columns are a, q"], id="unknown format"
        ),
        pytest.param(
            [chat("word " * 300, "answer"), chat("word " * 400, "answer")],
            ["2 of 2 rows", "line 1: 617 tokens, longer than 128", "line 2: "],
            id="all truncated",
        ),
    ],
)
def test_bad_data_is_refused_with_file_line_and_reason(
    job: JobFolder, rows: list[Any], told: list[str]
) -> None:
    job.write_rows(rows)
    with pytest.raises(TrainerError) as refused:
        prepare(job.config(), job.locations)
    assert refused.value.reason is Reason.DATA_INVALID
    assert "pvc://data/train.jsonl" in refused.value.message
    for text in told:
        assert text in refused.value.message
    assert not list((job.root / "work/tuning").glob("prepared/*"))


def test_the_first_ten_bad_rows_are_told_and_all_are_counted(job: JobFolder) -> None:
    job.write_rows([chat("a", "") if n % 2 else GOOD[n] for n in range(60)])
    outcome = job.run("prepare", job.config())
    assert outcome.code == ExitCode.DATA_INVALID
    assert isinstance(outcome.answer, Failure)
    message = outcome.answer.message
    assert message.startswith("30 of 60 rows can't be used (the first 10 are told)")
    assert "line 20:" in message
    assert "line 22:" not in message
    assert message in outcome.stderr


def test_a_row_whose_answer_is_cut_away_is_dropped_with_a_warning(job: JobFolder) -> None:
    job.write_rows([chat("word " * 300, "never reached"), *GOOD[:5]])
    facts = prepare(job.config(), job.locations)
    assert (facts.data.rows, facts.data.truncated_rows) == (6, 1)
    assert len(documents(prepared_folder(job, facts))) == 5
    assert any(warning.startswith("1 row dropped") for warning in facts.data.warnings)


@pytest.mark.parametrize(
    ("row", "dataset", "task", "text"),
    [
        pytest.param(
            {"question": "Why?", "answer": " Because."},
            {"columns": {"prompt": "question", "completion": "answer"}},
            "TextGeneration",
            "Why?« Because.<|im_end|>»",
            id="prompt and completion, plain",
        ),
        pytest.param(
            {"prompt": "Why?", "completion": "Because."},
            {},
            "ChatCompletion",
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«Because.<|im_end|>»\n",
            id="prompt and completion, as a chat",
        ),
        pytest.param(
            {"body": "Once upon a time."},
            {"columns": {"text": "body"}},
            "TextGeneration",
            # Nothing stands before the first token to predict it from.
            "O«nce upon a time.<|im_end|>»",
            id="text",
        ),
    ],
)
def test_formats_and_column_mapping(
    job: JobFolder, row: dict[str, str], dataset: dict[str, Any], task: str, text: str
) -> None:
    job.write_rows([row])
    source = {"source": {"uri": "pvc://data/train.jsonl"}, **dataset}
    facts = prepare(job.config(task=task, dataset={"train": [source]}), job.locations)
    assert prepared.example_of(prepared_folder(job, facts)) == text
