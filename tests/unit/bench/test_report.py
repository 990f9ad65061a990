"""The page's tables come whole from the JSON of a run."""

from __future__ import annotations

import json

import pytest

from bench.figures import Figures
from bench.report import PAGE_END, PAGE_START, SCENARIO_TITLES, document, markdown, put_on_page
from bench.scenarios import SCENARIOS

HOST = {
    "cores": 2,
    "cpu": "a processor",
    "memoryGiB": 24.0,
    "kernel": "6.1",
    "python": "3.11",
    "othersCpuPercent": 3.0,
    "idlePercent": 40.0,
}


def test_every_scenario_has_a_title() -> None:
    assert SCENARIO_TITLES.keys() == SCENARIOS.keys()


def test_tables_survive_json() -> None:
    figures = Figures("idle")
    figures.add("cpu_percent", "CPU of one core", 0.456, "%")
    found = document(figures.all, "python -m bench.operator", HOST, 12.3)
    text = markdown(json.loads(json.dumps(found)))
    assert "- Machine: 2 cores (a processor), 24 GiB memory, kernel 6.1, Python 3.11" in text
    assert "Other programs took 3 % of all cores" in text
    assert "| CPU of one core | 0.456 % |" in text
    assert "| T7 | Idle: 0.2 requests/s, 1 % of a core. | CPU: 0.456 % (at most 1: met) |" in text
    assert "| T3 |" in text


def test_a_small_run_is_held_against_nothing() -> None:
    found = document(Figures("idle").all, "python -m bench.operator --quick", HOST, 1.0)
    assert "targets" not in markdown(found, targets=False)


def test_tables_on_the_page_are_replaced_and_the_rest_is_kept() -> None:
    page = f"# Title\n\n{PAGE_START}\nold\n{PAGE_END}\n\n## After\n"
    once = put_on_page(page, "new\n")
    assert once == f"# Title\n\n{PAGE_START}\nnew\n{PAGE_END}\n\n## After\n"
    assert put_on_page(once, "new\n") == once
    with pytest.raises(ValueError, match="no lines"):
        put_on_page("# Title\n", "new\n")
