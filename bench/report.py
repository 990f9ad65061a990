"""Writes a run down: as JSON for machines, as Markdown tables for docs/benchmarks.md."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figure, as_json, as_values
from bench.targets import TARGETS, how_far
from hack.devcluster.images import REPOSITORY_ROOT

PAGE_START = "<!-- Written by `python -m bench.operator --page`: -->"
PAGE_END = "<!-- end of what is written -->"
SCENARIO_TITLES = {
    "idle": "No job at all",
    "writes": "Writes of an undisturbed job",
    "rate": "One job a second",
    "burst": "All jobs at once",
    "cold": "Restart among finished jobs",
    "wide": "One job of very many pods",
    "restart": "A worker pod deleted",
    "steady": "Steady state",
    "failover": "Two replicas",
}


def document(
    figures: Sequence[Figure], command: str, host: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Everything about a run. ``host``: what bench.machine tells."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": command,
        "commit": _commit(),
        "seconds": round(seconds),
        "machine": dict(host),
        "figures": as_json(figures),
    }


def markdown(report: Mapping[str, Any], *, targets: bool = True) -> str:
    """The tables of docs/benchmarks.md from what :func:`document` made; without the ``targets`` for a run
    that is too small to be held against them."""
    figures = [Figure(**each) for each in report["figures"]]
    host = report["machine"]
    lines = [
        f"- Date: {report['date']}, commit `{report['commit']}`, {report['seconds']} s",
        f"- Command: `{report['command']}`",
        f"- Machine: {host['cores']} cores ({host['cpu']}), {host['memoryGiB']:g} GiB memory, kernel "
        f"{host['kernel']}, Python {host['python']}",
        f"- Other programs took {host['othersCpuPercent']:g} % of all cores meanwhile; idle were "
        f"{host['idlePercent']:g} %",
        "",
    ]
    if targets:
        lines += _against_targets(as_values(figures))
    lines += ["### All figures", ""]
    for scenario, title in SCENARIO_TITLES.items():
        rows = [each for each in figures if each.key.startswith(f"{scenario}.")]
        if rows:
            lines += [f"**{title}** (`{scenario}`)", "", "| figure | |", "|---|---|"]
            lines += [f"| {each.what} | {each.shown} |" for each in rows]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def put_on_page(page: str, tables: str) -> str:
    """``page`` with ``tables`` in place of those of an earlier run.

    Raises ValueError when the page has no place for them.
    """
    before, start, rest = page.partition(PAGE_START)
    _, end, after = rest.partition(PAGE_END)
    if not start or not end:
        raise ValueError(f"the page has no lines {PAGE_START!r} and {PAGE_END!r} to put the tables between")
    return f"{before}{PAGE_START}\n{tables}{PAGE_END}{after}"


def _against_targets(values: Mapping[str, float]) -> list[str]:
    lines = ["### Against the targets", "", "| | target | measured | |", "|---|---|---|---|"]
    for target in TARGETS:
        measured = "<br>".join(how_far(target, values)) or "not measured"
        lines.append(f"| {target.name} | {target.text} | {measured} | {target.note} |")
    return [*lines, ""]


def _commit() -> str:
    """The commit that was measured, marked when the tree differs from it."""
    command = ["git", "-C", str(REPOSITORY_ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
