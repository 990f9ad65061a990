"""Packing is best-fit decreasing, loses nothing, and fills sequences almost wholly."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright_trainer.data.pack import best_fit_decreasing


def naive(lengths: list[int], capacity: int) -> list[int]:
    """How full each sequence becomes, by looking through all of them for the tightest fit."""
    fills: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, fill in enumerate(fills) if fill + length <= capacity]
        if fitting:
            fills[max(fitting, key=lambda place: fills[place])] += length
        else:
            fills.append(length)
    return sorted(fills)


@given(st.integers(1, 60).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=80))))
def test_it_is_best_fit_decreasing_and_keeps_every_document_once(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    sequences = best_fit_decreasing(lengths, capacity)
    assert sorted(index for sequence in sequences for index in sequence) == list(range(len(lengths)))
    assert sorted(sum(lengths[index] for index in sequence) for sequence in sequences) == naive(
        lengths, capacity
    )


@pytest.mark.parametrize("length", [0, 11])
def test_a_length_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 10"):
        best_fit_decreasing([3, length], 10)


def test_twenty_thousand_documents_fill_the_sequences_and_take_no_time() -> None:
    random_ = random.Random(0)
    lengths = [min(4096, max(1, int(random_.lognormvariate(5.8, 1.0)))) for _ in range(20_000)]
    started = time.process_time()
    sequences = best_fit_decreasing(lengths, 4096)
    assert time.process_time() - started < 2
    assert sum(lengths) / (len(sequences) * 4096) > 0.987
