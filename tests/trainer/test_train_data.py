"""Which rows a step reads, and that packing changes nothing that a model computes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.gang_rig import write_shard
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.train import data


def batches(
    rows: int, *, rank: int = 0, world_size: int = 1, micro: int = 2, epoch: int = 0
) -> data.GlobalBatches:
    made = data.GlobalBatches(
        rows, global_batch=8, micro_batch=micro, rank=rank, world_size=world_size, seed=7
    )
    made.set_epoch(epoch)
    return made


def global_batches(rows: int, world_size: int, micro: int, epoch: int = 0) -> list[list[int]]:
    """The rows of each step, over all ranks and accumulation steps, sorted."""
    accumulation = 8 // (micro * world_size)
    per_rank = [
        list(batches(rows, rank=r, world_size=world_size, micro=micro, epoch=epoch))
        for r in range(world_size)
    ]
    steps = len(per_rank[0]) // accumulation
    return [
        sorted(
            row
            for mine in per_rank
            for chosen in mine[step * accumulation : (step + 1) * accumulation]
            for row in chosen
        )
        for step in range(steps)
    ]


def test_an_epoch_reads_each_row_once() -> None:
    read = [row for step in global_batches(22, 2, 2) for row in step if row != data.FILLER]
    assert sorted(read) == list(range(22))


@pytest.mark.parametrize(("world_size", "micro"), [(1, 1), (2, 1), (2, 2), (4, 2), (8, 1), (1, 8)])
def test_a_global_batch_holds_the_same_rows_however_it_is_cut(world_size: int, micro: int) -> None:
    assert global_batches(22, world_size, micro) == global_batches(22, 1, 2)


def test_epochs_differ_and_repeat_by_seed() -> None:
    assert list(batches(22, epoch=0)) != list(batches(22, epoch=1))
    assert list(batches(22, epoch=1)) == list(batches(22, epoch=1))


def test_the_loader_passes_the_epoch_on_and_so_does_its_skipped_form(tmp_path: Path) -> None:
    """As the Trainer does it: by ``set_epoch`` of the loader, or of the batches behind a resumed one."""
    from accelerate import PartialState
    from accelerate.data_loader import skip_first_batches

    PartialState(cpu=True)
    write_shard(tmp_path / "train.arrow", 22, seed=1)
    table = data.open_split(tmp_path, "train")
    assert table is not None
    loader = data.loader(data.PackedRows(table), batches(22), pin_memory=False)
    loader.set_epoch(1)
    whole = [batch["input_ids"].tolist() for batch in loader]
    loader.set_epoch(0)
    assert [batch["input_ids"].tolist() for batch in loader] != whole
    resumed = skip_first_batches(loader, 4)
    resumed.batch_sampler.batch_sampler.set_epoch(1)
    assert [batch["input_ids"].tolist() for batch in resumed] == whole[4:]


def test_every_rank_makes_the_same_number_of_passes() -> None:
    lengths = {len(list(batches(3, rank=rank, world_size=4, micro=1))) for rank in range(4)}
    assert lengths == {2}
    assert len(batches(3, world_size=4, micro=1)) == 2


def test_validation_reads_each_row_once_and_fills_up() -> None:
    per_rank = [list(data.validation_batches(5, 2, rank, 2)) for rank in range(2)]
    assert [len(mine) for mine in per_rank] == [2, 2]
    read = sorted(row for mine in per_rank for chosen in mine for row in chosen)
    assert read == [-1, -1, -1, 0, 1, 2, 3, 4]


def test_a_filler_carries_no_loss(tmp_path: Path) -> None:
    write_shard(tmp_path / "train.arrow", 2, seed=1)
    table = data.open_split(tmp_path, "train")
    assert table is not None
    batch = data.collate([data.PackedRows(table)[0], data.PackedRows(table)[data.FILLER]])
    assert bool((batch["labels"][0] != data.IGNORED).any())
    assert bool((batch["labels"][1] == data.IGNORED).all())


def test_padding_is_a_document_of_its_own_without_loss() -> None:
    long = {name: np.arange(4) for name in data.COLUMNS}
    short = {name: np.arange(2) for name in data.COLUMNS}
    batch = data.collate([long, short])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 1, 2, 3], [-100, 1, -100, -100]]
    assert "attention_mask" not in batch


def test_missing_splits_and_torn_files(tmp_path: Path) -> None:
    assert data.open_split(tmp_path, "validation") is None
    write_shard(tmp_path / "train.arrow", 4, seed=1)
    content = (tmp_path / "train.arrow").read_bytes()
    (tmp_path / "train.arrow").write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainerError, match="prepared train data can't be read"):
        data.open_split(tmp_path, "train")


def test_packed_rows_give_each_document_the_logits_it_has_alone(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_shard(tmp_path / "train.arrow", 3, seed=5)
    table = data.open_split(tmp_path, "train")
    assert table is not None
    batch = data.collate([data.PackedRows(table)[index] for index in range(3)])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa")
    with torch.no_grad():
        together = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        for row in range(3):
            starts = [
                *(batch["position_ids"][row] == 0).nonzero().flatten().tolist(),
                batch["input_ids"].shape[1],
            ]
            for first, last in pairwise(starts):
                alone = model(input_ids=batch["input_ids"][row : row + 1, first:last], use_cache=False).logits
                torch.testing.assert_close(together[row, first:last], alone[0], atol=1e-5, rtol=0)
