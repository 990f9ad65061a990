"""Ten thousand random histories: whatever happens, what a job says never contradicts itself, and it ends."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.unit.core.history import History
from tunewright.core.lifecycle import Phase

HISTORIES = 10_000
CHUNK = 250


def run(first: int, count: int = CHUNK) -> tuple[Counter[str], list[str]]:
    """Runs the histories of ``count`` seeds; returns the phases that they saw, and what went wrong."""
    seen: Counter[str] = Counter()
    wrong = []
    for seed in range(first, first + count):
        history = History(seed)
        try:
            history.run()
        except Exception:
            wrong.append(f"seed {seed} ({', '.join(history.log)}):\n{traceback.format_exc(limit=-6)}")
        seen.update(history.phases)
    return seen, wrong


def _in_parallel(count: int) -> Iterable[tuple[Counter[str], list[str]]]:
    with ProcessPoolExecutor(max_workers=os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, range(0, count, CHUNK))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [2 * CHUNK, HISTORIES])
def test_histories_break_no_rule(count: int) -> None:
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for phases, errors in _in_parallel(count):
        seen.update(phases)
        wrong += errors
    assert not wrong, f"{len(wrong)} of {count} histories broke a rule; the first:\n{wrong[0]}"
    # Histories that never get anywhere would show nothing.
    assert {phase for phase in Phase if seen[phase] < count * 0.01} == set(), seen


def test_a_history_is_repeatable() -> None:
    first, second = History(7), History(7)
    first.run()
    second.run()
    assert (first.log, first.cluster.job) == (second.log, second.cluster.job)
