"""Figures are summed up and written as people read them."""

from __future__ import annotations

import pytest

from bench.figures import Figures, percentile, shown


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 61)], 99, 60.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentile_is_a_value_that_was_measured(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_nothing_measured_is_no_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (16.0, "16"), (0.4667, "0.467"), (3.456, "3.46"), (1129.4, "1129")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_keys_name_the_scenario() -> None:
    figures = Figures("rate")
    figures.add_latency("prepare_job", "create → prepare Job", [1.0, 3.0, 2.0])
    assert {figure.key: figure.value for figure in figures.all} == {
        "rate.prepare_job_p50_ms": 2.0,
        "rate.prepare_job_p99_ms": 3.0,
    }
    assert figures.all[0].shown == "2 ms"
