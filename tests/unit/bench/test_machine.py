"""Others' share of the machine is what is neither idle nor ours."""

from __future__ import annotations

import os
import platform

import pytest

from bench.machine import CpuUse, machine


@pytest.mark.parametrize(
    ("after", "others", "idle"),
    [
        (CpuUse(idle=150, busy=50, own=50), 0, 75),
        (CpuUse(idle=0, busy=200, own=50), 75, 0),
        (CpuUse(idle=100, busy=100, own=101), 0, 50),
    ],
    ids=["ours alone", "mostly others", "clock ticks differ"],
)
def test_shares(after: CpuUse, others: int, idle: int) -> None:
    assert after.since(CpuUse(0, 0, 0)) == {"othersCpuPercent": others, "idlePercent": idle}


def test_own_time_grows_with_work() -> None:
    before = CpuUse.now()
    until = os.times().user + 0.05  # clock ticks are 0.01 s
    while os.times().user < until:
        sum(range(10_000))
    after = CpuUse.now()
    assert after.own - before.own >= 0.04
    assert after.busy >= before.busy


def test_the_machine_is_described_without_its_name() -> None:
    told = machine()
    assert told["cores"] >= 1
    assert told["memoryGiB"] > 0
    assert platform.node() not in map(str, told.values())
