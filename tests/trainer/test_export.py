"""Export: all that a server needs, under the true base name, whole, and never over somebody else's."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hack.test_materials import CHATML
from tests.trainer.jobs import JobFolder, chat, edit_json, finish
from tunewright_trainer.checkpoint.manifest import record
from tunewright_trainer.contract import ExitCode, ExportResult, Failure, Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.export.run import export
from tunewright_trainer.export.tensors import check_tensors
from tunewright_trainer.files import write_json
from tunewright_trainer.model.headers import read_header
from tunewright_trainer.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


EXPORTED = {
    "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja", "training_config.json", "metrics.json", "README.md", "tunewright.json",
}  # fmt: skip


def test_the_command_exports_what_a_server_needs(
    job: JobFolder, finished: TrainerConfig, adapter: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome = job.run("export", finished)
    assert outcome.code == ExitCode.OK, outcome.stderr
    out = job.out / "support-bot"
    assert files_below(job.out) == {f"support-bot/{name}" for name in EXPORTED}
    assert (
        json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "pvc://models/tiny"
    )
    texts = [(out / name).read_text() for name in EXPORTED if not name.endswith(".safetensors")]
    assert not any(str(job.root) in text for text in texts)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = torch.tensor([tokenizer("Do I need a permit?")["input_ids"]])

    def logits(weights: Path) -> Any:
        base = AutoModelForCausalLM.from_pretrained(job.root / "models/tiny")
        return PeftModel.from_pretrained(base, weights)(ids).logits

    assert torch.equal(logits(out), logits(adapter))


def test_the_answer_names_a_digest_that_anyone_can_recompute(job: JobFolder, finished: TrainerConfig) -> None:
    result = export(finished, job.locations)
    [output] = result.outputs
    out = job.out / "support-bot"
    names = sorted(EXPORTED - {"tunewright.json"})
    lines = [f"{name} {hashlib.sha256((out / name).read_bytes()).hexdigest()}\n" for name in names]
    assert output.digest == f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    assert output.size_bytes == sum((out / name).stat().st_size for name in names)
    assert (output.format, output.destination, result.adopted) == ("Adapter", "pvc://out/support-bot", False)


def test_the_card_tells_base_recipe_data_metrics_and_licence(job: JobFolder, finished: TrainerConfig) -> None:
    (job.root / "models/tiny/LICENSE").write_text("Apache License\nVersion 2.0\n")
    export(finished, job.locations)
    card = (job.out / "support-bot/README.md").read_text()
    manifest = json.loads((job.out / "support-bot/tunewright.json").read_text())
    for text in (
        'license: "apache-2.0"', "`pvc://models/tiny`", "| rank | 4 |", "| ZeRO stage | 2 |",
        "| validation loss | 1.5 |", "| learning rate | 0.0002 |", f"sha256:{manifest['data_fingerprint']}",
        "| torch | 2.13.0 |", "Inherited from `pvc://models/tiny`: apache-2.0.",
    ):  # fmt: skip
        assert text in card
    assert "base_model:" not in card  # a URI is no name that a hub knows


def test_a_chat_template_of_the_job_goes_with_the_adapter(job: JobFolder, finished: TrainerConfig) -> None:
    template = CHATML.replace("user", "user")
    dataset = finished.dataset.model_copy(update={"chat_template": template})
    export(finished.model_copy(update={"dataset": dataset}), job.locations)
    assert (job.out / "support-bot/chat_template.jinja").read_text() == template


def test_a_second_export_adopts_what_is_there(job: JobFolder, finished: TrainerConfig) -> None:
    first = export(finished, job.locations)
    written = (job.out / "support-bot/tunewright.json").read_text()
    shutil.rmtree(job.workspace(finished).job(finished.job_uid))
    again = finished.model_copy(update={"job_uid": "another", "job_name": "re-created"})
    assert export(again, job.locations) == ExportResult(outputs=first.outputs, adopted=True)
    assert (job.out / "support-bot/tunewright.json").read_text() == written


def test_prepare_says_that_the_output_is_there_already(job: JobFolder, finished: TrainerConfig) -> None:
    assert not prepare(finished, job.locations).adoptable
    export(finished, job.locations)
    assert prepare(finished, job.locations).adoptable


def test_a_job_knows_its_own_output_when_the_workspace_is_gone(
    job: JobFolder, finished: TrainerConfig
) -> None:
    first = export(finished, job.locations)
    shutil.rmtree(job.root / "work")
    assert export(finished, job.locations) == ExportResult(outputs=first.outputs, adopted=True)
    another = finished.model_copy(update={"job_uid": "another"})
    with pytest.raises(TrainerError, match="this job's is not known") as refused:
        export(another, job.locations)
    assert refused.value.reason is Reason.DESTINATION_OCCUPIED


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_the_same_spec_on_changed_data_is_another_result(
    job: JobFolder, finished: TrainerConfig, damaged: bool
) -> None:
    """The spec's hash covers the data's address only."""
    export(finished, job.locations)
    if damaged:
        (job.out / "support-bot/README.md").write_text("notes")
    before = {name: (job.out / "support-bot" / name).read_bytes() for name in EXPORTED}
    rows = (job.data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    job.write_rows([*rows[:-1], chat("Is it new?", "It is.")])
    again = finished.model_copy(update={"job_uid": "another", "prepared_key": None})
    told = r"out/support-bot is taken: .* default/support-bot with the same spec, but made from other data"
    with pytest.raises(TrainerError, match=told) as refused:
        prepare(again, job.locations)
    assert refused.value.reason is Reason.DESTINATION_OCCUPIED
    assert refused.value.advice is not None
    assert "another output.destination, or move away" in refused.value.advice
    shutil.move(job.out / "support-bot", job.out / "old")
    facts = prepare(again, job.locations)
    assert not facts.adoptable
    shutil.move(job.out / "old", job.out / "support-bot")
    with pytest.raises(TrainerError, match=told):
        export(again.model_copy(update={"prepared_key": facts.prepared_key}), job.locations)
    assert {name: (job.out / "support-bot" / name).read_bytes() for name in EXPORTED} == before


def test_another_revision_of_the_base_model_is_another_result(
    job: JobFolder, finished: TrainerConfig
) -> None:
    """A branch moves: what prepare resolved counts, where it is known."""
    note = job.workspace(finished).job(finished.job_uid) / "model.json"
    edit_json(note, revision="aaa111")
    (job.workspace(finished).root / "models").mkdir(exist_ok=True)
    shutil.copytree(job.root / "models/tiny", job.workspace(finished).root / "models/tiny")
    edit_json(note, downloaded_to="models/tiny")
    export(finished, job.locations)
    assert export(finished, job.locations).adopted
    edit_json(note, revision="bbb222")
    told = r"the same spec, but tuned from revision aaa111 of pvc://models/tiny \(this job's is bbb222\)"
    with pytest.raises(TrainerError, match=told) as refused:
        export(finished, job.locations)
    assert refused.value.reason is Reason.DESTINATION_OCCUPIED
    edit_json(note, revision=None)
    assert export(finished, job.locations).adopted


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer.json"])
def test_a_damaged_output_is_made_anew(job: JobFolder, finished: TrainerConfig, name: str) -> None:
    first = export(finished, job.locations)
    path = job.out / "support-bot" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    second = export(finished, job.locations)
    assert second == first
    assert not second.adopted


@pytest.mark.parametrize("command", [prepare, export], ids=["prepare", "export"])
def test_another_specs_output_is_never_touched(job: JobFolder, finished: TrainerConfig, command: Any) -> None:
    export(finished, job.locations)
    before = {name: (job.out / "support-bot" / name).read_bytes() for name in EXPORTED}
    with pytest.raises(TrainerError, match=r"holds the output of job default/support-bot") as refused:
        command(finished.model_copy(update={"spec_hash": "bbbb"}), job.locations)
    assert refused.value.reason is Reason.DESTINATION_OCCUPIED
    assert {name: (job.out / "support-bot" / name).read_bytes() for name in EXPORTED} == before


@pytest.mark.parametrize("command", [prepare, export], ids=["prepare", "export"])
def test_somebody_elses_adapter_is_never_touched(
    job: JobFolder, finished: TrainerConfig, command: Any
) -> None:
    theirs = job.out / "support-bot/adapter_model.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(b"precious")
    with pytest.raises(TrainerError, match="that no manifest of ours describes") as refused:
        command(finished, job.locations)
    assert refused.value.reason is Reason.DESTINATION_OCCUPIED
    assert theirs.read_bytes() == b"precious"
    assert files_below(job.out) == {"support-bot/adapter_model.safetensors"}


def test_other_files_at_the_destination_stay(job: JobFolder, finished: TrainerConfig) -> None:
    (job.out / "support-bot").mkdir()
    (job.out / "support-bot/notes.txt").write_text("mine")
    export(finished, job.locations)
    assert files_below(job.out / "support-bot") == EXPORTED | {"notes.txt"}
    assert (job.out / "support-bot/notes.txt").read_text() == "mine"


def test_the_root_of_a_claim_can_be_a_destination(job: JobFolder, finished: TrainerConfig) -> None:
    (job.out / "lost+found").mkdir()
    root = finished.model_copy(
        update={"output": finished.output.model_copy(update={"destination": job.config().workspace})}
    )
    root = TrainerConfig.model_validate(root.model_dump() | {"output": {"destination": {"uri": "pvc://out"}}})
    export(root, job.locations)
    assert files_below(job.out) == EXPORTED
    assert not list(job.out.glob(".*"))


def rewrite(path: Path, change: Any) -> None:
    """Change the tensors of a safetensors file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    for name, tensor in tensors.items():
        change(name, tensor)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("spoil", "reason", "told"),
    [
        pytest.param(
            lambda name, tensor: tensor.zero_() if "lora_B" in name else tensor,
            Reason.DEAD_ADAPTER,
            "all 14 B matrices are zero",
            id="all B zero",
        ),
        pytest.param(
            lambda name, tensor: tensor.view(-1)[-1:].fill_(float("nan")) if "layers.1" in name else tensor,
            Reason.NAN_LOSS,
            "is not finite",
            id="not a number",
        ),
        pytest.param(
            lambda name, tensor: tensor.view(-1)[:1].fill_(float("-inf")) if "lora_A" in name else tensor,
            Reason.NAN_LOSS,
            "is not finite",
            id="infinite",
        ),
    ],
)
def test_weights_not_worth_keeping_are_not_exported(
    job: JobFolder,
    finished: TrainerConfig,
    adapter: Path,
    tmp_path: Path,
    spoil: Any,
    reason: Reason,
    told: str,
) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(adapter, spoiled)
    rewrite(spoiled / "adapter_model.safetensors", spoil)
    finish(job, finished, spoiled)
    with pytest.raises(TrainerError) as refused:
        export(finished, job.locations)
    assert refused.value.reason is reason
    assert told in refused.value.message
    assert files_below(job.out) == set()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_tensors_are_judged_alike_in_every_dtype(tmp_path: Path, dtype: str) -> None:
    """Against numpy's own values: bf16 is the upper half of an fp32."""
    path = tmp_path / "x.safetensors"

    def save(values: list[float], name: str) -> None:
        array: NDArray[Any] = np.array(values, {"F16": "<f2", "F64": "<f8"}.get(dtype, "<f4"))
        content = (array.view("<u4") >> 16).astype("<u2").tobytes() if dtype == "BF16" else array.tobytes()
        header = {name: {"dtype": dtype, "shape": [len(values)], "data_offsets": [0, len(content)]}}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content)

    save([0.0, -0.0], "x.lora_B.weight")
    with pytest.raises(TrainerError, match="zero"):
        check_tensors([path], adapter=True)
    save([0.0, 1e-4], "x.lora_B.weight")
    assert check_tensors([path], adapter=True) == 1
    for bad in (float("inf"), float("-inf"), float("nan")):
        save([1.0, bad], "x.lora_B.weight")
        with pytest.raises(TrainerError, match="not finite"):
            check_tensors([path], adapter=True)
    save([], "x.lora_B.weight")
    with pytest.raises(TrainerError, match="is empty"):
        check_tensors([path], adapter=True)


def test_weights_damaged_in_the_workspace_are_not_exported(job: JobFolder, finished: TrainerConfig) -> None:
    path = job.workspace(finished).final(finished.job_uid) / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    outcome = job.run("export", finished)
    assert outcome.code == ExitCode.STORAGE_ERROR
    assert isinstance(outcome.answer, Failure)
    assert "the content of adapter_model.safetensors has changed" in outcome.answer.message
    assert files_below(job.out) == set()


def test_an_unfinished_training_is_not_exported(job: JobFolder, finished: TrainerConfig) -> None:
    (job.workspace(finished).final(finished.job_uid) / "manifest.json").unlink()
    with pytest.raises(TrainerError, match="training has not finished"):
        export(finished, job.locations)


def test_a_manifest_that_names_files_elsewhere_is_refused(job: JobFolder, finished: TrainerConfig) -> None:
    final = job.workspace(finished).final(finished.job_uid)
    stray = final.parent / "stray"
    stray.write_text("x")
    manifest = json.loads((final / "manifest.json").read_text())
    manifest["files"].append({**record(final.parent, stray).model_dump(), "path": "../stray"})
    write_json(final / "manifest.json", manifest)
    with pytest.raises(TrainerError, match=r"names \.\./stray"):
        export(finished, job.locations)


def test_a_full_model_goes_out_whole(job: JobFolder, tiny_model: Path) -> None:
    finished = job.config(method={"type": "Full"})
    final = job.workspace(finished).final(finished.job_uid)
    names = ("config.json", "generation_config.json", "model.safetensors")
    weights = job.root / "weights"
    weights.mkdir()
    for name in names:
        shutil.copyfile(tiny_model / name, weights / name)
    finish(job, finished, weights)
    result = export(finished, job.locations)
    assert result.outputs[0].format == "Model"
    assert files_below(job.out / "support-bot") == EXPORTED - {
        "adapter_config.json",
        "adapter_model.safetensors",
    } | set(names)
    assert read_header(job.out / "support-bot/model.safetensors") == read_header(final / "model.safetensors")
