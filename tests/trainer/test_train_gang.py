"""Real gangs of two DeepSpeed ranks: what they compute, and that an interruption changes nothing of it."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.gang_rig import Pod, Site, run
from tunewright_trainer.checkpoint.manifest import CheckpointManifest, record
from tunewright_trainer.contract import ExitCode, Failure, Reason, TrainerConfig, TrainResult
from tunewright_trainer.train import data

pytestmark = pytest.mark.trainer

STAGES = (0, 1, 2, 3)
FULL: dict[str, Any] = {"type": "Full", "lora": None}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def finished(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Pod]:
    """A run to the end under each ZeRO stage; jobs ``zero-0`` to ``zero-3``."""
    folder = tmp_path_factory.mktemp("finished")
    pods = {}
    for stage in STAGES:
        config = site.config(f"zero-{stage}", deepspeed={"zero_stage": stage}, checkpoint={"keep": 3})
        pods[stage] = run(site, config, folder / str(stage))
        assert pods[stage].ended == [ExitCode.OK], pods[stage].text()
        assert list(pods[stage].scratch.rglob("*.so")) == [], "something was compiled at run time"
    return pods


def curve(site: Site, uid: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = site.metrics(uid)["curve"]
    return found


@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.usefixtures("finished")
def test_all_zero_stages_give_the_same_losses(site: Site, stage: int) -> None:
    reference, this = curve(site, "zero-0"), curve(site, f"zero-{stage}")
    assert this["steps"] == reference["steps"] == [1, 2, 3, 4, 5, 6]
    assert this["loss"] == pytest.approx(reference["loss"], abs=5e-5)
    assert this["eval_steps"] == [0, 3, 6]
    assert this["eval_loss"] == pytest.approx(reference["eval_loss"], abs=5e-5)


def test_losses_are_means_over_the_tokens_of_the_whole_batch(site: Site, finished: dict[int, Pod]) -> None:
    """Against a plain model that sees each document alone: no packing, no ranks, no accumulation."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(site.root / "model")

    def mean_loss(split: str, rows: list[int]) -> float:
        table = data.open_split(site.root / "prepared" / "key", split)
        assert table is not None
        total, tokens = 0.0, 0
        for index in rows:
            row = {name: torch.from_numpy(value) for name, value in data.PackedRows(table)[index].items()}
            starts = [*(row["position_ids"] == 0).nonzero().flatten().tolist(), len(row["input_ids"])]
            for first, last in pairwise(starts):
                logits = model(input_ids=row["input_ids"][None, first:last]).logits[0, :-1]
                targets = row["labels"][first + 1 : last]
                total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
                tokens += int((targets != data.IGNORED).sum())
        return total / tokens

    batches = data.GlobalBatches(22, global_batch=8, micro_batch=8, rank=0, world_size=1, seed=42)
    seen = curve(site, "zero-2")
    with torch.no_grad():
        # At step 1 the adapter is still zero, and so is the learning rate of its warm-up.
        assert seen["loss"][0] == pytest.approx(mean_loss("train", next(iter(batches))), abs=1e-5)
        assert seen["eval_loss"][0] == pytest.approx(mean_loss("validation", list(range(5))), abs=1e-5)
    assert finished[2].ended == [0]


@pytest.mark.usefixtures("finished")
def test_how_a_global_batch_is_accumulated_changes_nothing(site: Site, tmp_path: Path) -> None:
    # Dropout draws differ by micro-batch shape, so both runs go without.
    without = {"type": "LoRA", "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}}
    for uid, micro, accumulation in (("one-pass", 4, 1), ("four-passes", 1, 4)):
        sizes = {"micro_batch": micro, "gradient_accumulation": accumulation}
        pod = run(site, site.config(uid, training=sizes, method=without), tmp_path / uid)
        assert pod.ended == [ExitCode.OK], pod.text()
    assert curve(site, "one-pass")["loss"] == pytest.approx(curve(site, "four-passes")["loss"], abs=5e-5)


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    site: Site, tmp_path: Path, stage: int
) -> None:
    """From the checkpoint of step 2, in the middle of an epoch, over its end, with dropout."""
    uid = f"zero-{stage}"
    losses, evaluations = curve(site, uid)["loss"], curve(site, uid)["eval_loss"]
    adapter = site.adapter(uid)
    shutil.rmtree(site.job(uid) / "final")
    for step in (4, 6):
        shutil.rmtree(site.job(uid) / "checkpoints" / f"step-{step:08d}-a1")
    config = site.config(uid, deepspeed={"zero_stage": stage}, checkpoint={"keep": 3})
    pod = run(site, config, tmp_path / "again", attempt=2)
    assert pod.ended == [ExitCode.OK], pod.text()
    assert pod.answer().resumed_from_step == 2
    assert curve(site, uid)["loss"] == losses
    assert curve(site, uid)["eval_loss"] == evaluations
    assert site.adapter(uid) == adapter


BF16_RUNS = ((0, "LoRA"), (2, "LoRA"), (3, "Full"))


def bf16_config(site: Site, stage: int, method: str) -> TrainerConfig:
    return site.config(
        f"bf16-{stage}-{method}",
        training={"precision": "BF16", "activation_checkpointing": True},
        deepspeed={"zero_stage": stage},
        checkpoint={"keep": 3},
        **({"method": FULL} if method == "Full" else {}),
    )


@pytest.fixture(scope="module")
def bf16(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bf16")
    for stage, method in BF16_RUNS:
        pod = run(site, bf16_config(site, stage, method), folder / f"{stage}-{method}")
        assert pod.ended == [ExitCode.OK], pod.text()


@pytest.mark.usefixtures("bf16")
def test_bf16_losses_of_zero_0_and_2_differ_by_rounding_only(site: Site) -> None:
    """DeepSpeed's rehearsal step under ZeRO 0, if it counted, would move them by ten times as much."""
    assert curve(site, "bf16-0-LoRA")["loss"] == pytest.approx(curve(site, "bf16-2-LoRA")["loss"], abs=5e-4)


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize(("stage", "method"), BF16_RUNS)
def test_bf16_resumes_bit_for_bit(site: Site, tmp_path: Path, stage: int, method: str) -> None:
    config = bf16_config(site, stage, method)
    job = site.job(config.job_uid)
    name = "model.safetensors" if method == "Full" else "adapter_model.safetensors"
    weights = (job / "final" / name).read_bytes()
    losses = curve(site, config.job_uid)["loss"]
    shutil.rmtree(job / "final")
    shutil.rmtree(job / "checkpoints" / "step-00000006-a1")
    again = run(site, config, tmp_path / "again", attempt=2)
    assert again.ended == [ExitCode.OK], again.text()
    assert again.answer().resumed_from_step == 4
    assert curve(site, config.job_uid)["loss"] == losses
    assert (job / "final" / name).read_bytes() == weights


def test_a_full_fine_tune_leaves_a_model_that_loads_and_has_moved(site: Site, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    training = {
        "learning_rate": 3e-3,
        "max_steps": 30,
        "evaluation": {"every_steps": 30, "every_epochs": None},
    }
    config = site.config("full", training=training, method=FULL, deepspeed={"zero_stage": 3})
    pod = run(site, config, tmp_path / "full")
    assert pod.ended == [ExitCode.OK], pod.text()
    base = AutoModelForCausalLM.from_pretrained(site.root / "model").state_dict()
    tuned = AutoModelForCausalLM.from_pretrained(site.job("full") / "final").state_dict()
    assert tuned.keys() == base.keys()
    assert all(bool((tuned[name] != base[name]).any()) for name in base)
    losses = curve(site, "full")["loss"]
    assert losses[-1] < losses[0] - 0.5


def test_finished_work_is_not_done_again(site: Site, tmp_path: Path, finished: dict[int, Pod]) -> None:
    before = (site.job("zero-1") / "final" / "manifest.json").stat().st_mtime_ns
    pod = run(site, site.config("zero-1", deepspeed={"zero_stage": 1}), tmp_path / "again", attempt=7)
    assert pod.ended == [ExitCode.OK]
    assert isinstance(pod.answer(), TrainResult)
    assert pod.answer().step == 6
    assert pod.rank_pids() == {}
    assert (site.job("zero-1") / "final" / "manifest.json").stat().st_mtime_ns == before
    assert finished[1].answer().loss == pod.answer().loss


@pytest.mark.usefixtures("finished")
def test_the_result_tells_what_was_trained(site: Site, finished: dict[int, Pod]) -> None:
    from safetensors import safe_open

    answer = finished[3].answer()
    with safe_open(site.job("zero-3") / "final" / "adapter_model.safetensors", "pt") as file:
        sizes = [file.get_tensor(name).numel() for name in file.keys()]  # noqa: SIM118 - not a mapping
    assert answer.trainable_parameters == sum(sizes)
    assert answer.total_parameters > 100_000
    assert answer.world_size == 2
    assert answer.adapter == "pvc://work/jobs/zero-3/final"
    assert answer.tokens > 6 * 8 * 32
    config = json.loads((site.job("zero-3") / "final" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "pvc://work/model"
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8, True)


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("stage", STAGES)
def test_checkpoints_hold_the_adapter_and_never_the_base_nor_code(site: Site, stage: int) -> None:
    files = [path for path in (site.job(f"zero-{stage}") / "checkpoints").rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".py"] == []
    models = [path for path in files if path.name.endswith("model_states.pt")]
    assert models
    for path in models:
        module = torch.load(path, weights_only=False)["module"]
        assert module
        assert [name for name in module if "lora_" not in name] == []


def test_a_run_that_lost_only_its_result_makes_no_further_step(site: Site, tmp_path: Path) -> None:
    """The last checkpoint is in the middle of an epoch, where the Trainer would go on by one step."""
    config = site.config("result-lost", training={"max_steps": 5})
    first = run(site, config, tmp_path / "first")
    assert first.ended == [ExitCode.OK], first.text()
    before, adapter = curve(site, "result-lost"), site.adapter("result-lost")
    shutil.rmtree(site.job("result-lost") / "final")
    # As if a SIGTERM had cut the last evaluation short.
    state = site.job("result-lost") / "checkpoints" / "step-00000005-a1" / "trainer_state.json"
    forget_evaluation(state, 5)
    again = run(site, config, tmp_path / "again", attempt=2)
    assert again.ended == [ExitCode.OK], again.text()
    assert again.answer().step == 5
    assert curve(site, "result-lost") == before
    assert site.adapter("result-lost") == adapter


def forget_evaluation(trainer_state: Path, step: int) -> None:
    """Take the evaluation of ``step`` out of a checkpoint, and put the manifest right."""
    state = json.loads(trainer_state.read_text())
    history = state["log_history"]
    state["log_history"] = [
        entry for entry in history if not ("eval_loss" in entry and entry["step"] == step)
    ]
    assert len(state["log_history"]) == len(history) - 1
    trainer_state.write_text(json.dumps(state))
    path = trainer_state.parent / "manifest.json"
    manifest = CheckpointManifest.model_validate_json(path.read_bytes())
    files = [file for file in manifest.files if file.path != trainer_state.name]
    files.append(record(trainer_state.parent, trainer_state))
    path.write_text(manifest.model_copy(update={"files": files}).model_dump_json())


def test_a_damaged_checkpoint_is_passed_over_and_training_ends_the_same(site: Site, tmp_path: Path) -> None:
    config = site.config("damaged", checkpoint={"keep": 3})
    first = run(site, config, tmp_path / "first")
    assert first.ended == [ExitCode.OK], first.text()
    adapter = site.adapter("damaged")
    shutil.rmtree(site.job("damaged") / "final")
    checkpoints = site.job("damaged") / "checkpoints"
    (checkpoints / "step-00000006-a1" / "manifest.json").unlink()
    shard = checkpoints / "step-00000004-a1" / "global_step4" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    again = run(site, config, tmp_path / "again", attempt=2)
    assert again.ended == [ExitCode.OK], again.text()
    assert "step-00000006-a1 is passed over: it has no manifest" in again.text()
    assert "step-00000004-a1 is passed over: the content of" in again.text()
    assert again.answer().resumed_from_step == 2
    assert site.adapter("damaged") == adapter


@pytest.mark.parametrize(
    ("uid", "training", "code", "reason"),
    [
        ("nan", {"learning_rate": 1e30}, ExitCode.NAN_LOSS, Reason.NAN_LOSS),
        ("dead", {"learning_rate": 0.0, "max_steps": 2}, ExitCode.DEAD_ADAPTER, Reason.DEAD_ADAPTER),
        ("batch", {"global_batch": 6}, ExitCode.CONFIG_INVALID, Reason.CONFIG_INVALID),
    ],
)
def test_a_run_that_cannot_succeed_says_why(
    site: Site, tmp_path: Path, uid: str, training: dict[str, Any], code: ExitCode, reason: Reason
) -> None:
    pod = run(site, site.config(uid, training=training), tmp_path / uid)
    assert pod.ended == [code], pod.text()
    answer = pod.answer()
    assert isinstance(answer, Failure)
    assert answer.reason == reason
    assert answer.advice
    assert not (site.job(uid) / "final").exists()
    log = (site.job(uid) / "logs" / "attempt-1" / "rank-0.log").read_text()
    assert reason.value in log
    assert "Traceback" in log


def test_a_checkpoint_that_cannot_be_written_ends_all_ranks_and_leaves_no_draft(
    site: Site, tmp_path: Path
) -> None:
    """A file-size limit stands in for a full volume: some ranks fail in the middle of a save."""
    pod = run(site, site.config("small-disk"), tmp_path / "run", file_limit_bytes=30_000)
    assert pod.ended == [ExitCode.STORAGE_ERROR], pod.text()
    assert pod.answer().reason == Reason.STORAGE_FAILED
    assert "wrote the checkpoint of step 2" in pod.answer().message
    assert site.checkpoints("small-disk") == []
