"""A figure is held against its limit in the right direction, and the page restates every target."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.targets import TARGETS, Check, how_far

PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"


@pytest.mark.parametrize(
    ("check", "value", "verdict"),
    [
        (Check("k", "idle", 130, "MB"), 90.2, "idle: 90.2 MB (at most 130: met)"),
        (Check("k", "idle", 130, "MB"), 130.0, "idle: 130 MB (at most 130: met)"),
        (Check("k", "CPU", 8, "ms"), 16.0, "CPU: 16 ms (at most 8: **missed, 2.0 times**)"),
        (Check("k", "writes", 0), 3.0, "writes: 3 (at most 0: **missed**)"),
        (
            Check("k", "pods", 200, "/s", "at least"),
            100.0,
            "pods: 100 /s (at least 200: **missed, 2.0 times**)",
        ),
        (Check("k", "pods", 200, "/s", "at least"), 250.0, "pods: 250 /s (at least 200: met)"),
    ],
)
def test_verdict(check: Check, value: float, verdict: str) -> None:
    assert check.verdict(value) == verdict


def test_only_what_was_measured_is_judged() -> None:
    target = next(each for each in TARGETS if each.name == "T7")
    assert how_far(target, {}) == []
    assert len(how_far(target, {"idle.cpu_percent": 0.5})) == 1


def test_all_ten_targets_are_there() -> None:
    assert {f"T{number}" for number in range(1, 11)} <= {target.name for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_page_restates_each_target(target: object) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert any(line.startswith(f"| {target.name} | {target.text} |") for line in rows), (  # type: ignore[attr-defined]
        "docs/benchmarks.md is older than bench/targets.py: run `make bench-operator` and paste its tables"
    )
