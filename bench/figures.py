"""What a benchmark found: figures with units, and how they are summed up and written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One number that was measured."""

    key: str
    """``scenario.name``, stable over releases."""
    what: str
    """In words, for the table."""
    value: float
    unit: str

    @property
    def shown(self) -> str:
        """The value as a person reads it, with its unit."""
        return f"{shown(self.value)} {self.unit}".strip()


class Figures:
    """Figures of one scenario, in the order in which they were added."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.all: list[Figure] = []

    def add(self, name: str, what: str, value: float, unit: str = "") -> None:
        self.all.append(Figure(f"{self.scenario}.{name}", what, round(float(value), 4), unit))

    def add_latency(self, name: str, what: str, milliseconds: Sequence[float]) -> None:
        """Median, 99th percentile and maximum."""
        for suffix, part, value in (
            ("p50", "median", percentile(milliseconds, 50)),
            ("p99", "p99", percentile(milliseconds, 99)),
        ):
            self.add(f"{name}_{suffix}_ms", f"{what}, {part}", value, "ms")


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that at least ``percent`` of all values don't exceed.

    Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values: nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def shown(value: float) -> str:
    """Three significant digits or the whole number."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def as_values(figures: Sequence[Figure]) -> dict[str, float]:
    """By key."""
    return {figure.key: figure.value for figure in figures}


def as_json(figures: Sequence[Figure]) -> list[Mapping[str, object]]:
    return [asdict(figure) for figure in figures]
