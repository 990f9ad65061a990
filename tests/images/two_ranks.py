"""Run by torchrun inside the trainer image: one small model, ZeRO-2, a few steps on two CPU ranks."""

from __future__ import annotations

import os
from typing import Any

import deepspeed
import torch
from deepspeed.ops.op_builder.builder import OpBuilder
from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder


def refuse_to_compile(self: OpBuilder, *_: Any, **__: Any) -> None:
    raise RuntimeError(f"{self.name} is not prebuilt")


def main() -> None:
    OpBuilder.jit_load = refuse_to_compile
    for builder in (ShareMemCommBuilder, CPUAdamBuilder):
        builder().load()
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    config = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 2}}
    config |= {"optimizer": {"type": "AdamW", "params": {"lr": 0.05, "torch_adam": True}}}
    engine, *_ = deepspeed.initialize(model=model, config=config, dist_init_required=True)
    x = torch.randn(4, 8)
    losses = []
    for _step in range(10):
        loss = (engine(x) - x.sum(dim=1, keepdim=True)).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    print(f"rank {os.environ['RANK']}: operators loaded, loss {'fell' if losses[-1] < losses[0] else 'rose'}")


if __name__ == "__main__":
    main()
