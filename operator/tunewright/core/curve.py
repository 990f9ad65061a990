"""The loss curve and progress in status: merged over restarts, thinned to what a status may hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tunewright.api.status import CURVE_POINTS
from tunewright.core.model import ProgressReport
from tunewright.core.observe import parse_time
from tunewright.core.outcome import timestamp

Point = tuple[int, float | None, float | None]
"""Step, training loss, validation loss."""

_DIGITS = 6


def merged_curve(curve: Mapping[str, Any], points: Iterable[Point]) -> dict[str, Any]:
    """``curve`` with ``points`` added.

    Steps that are done again after a restart replace what an earlier attempt said of them and all that
    came later, so that steps only rise.
    """
    points = list(points)
    losses = _merge(
        list(zip(curve.get("steps") or [], curve.get("loss") or [], strict=False)),
        [(step, loss) for step, loss, _ in points if loss is not None],
    )
    evaluations = _merge(
        list(zip(curve.get("evalSteps") or [], curve.get("evalLoss") or [], strict=False)),
        [(step, loss) for step, _, loss in points if loss is not None],
    )
    return {
        "steps": [step for step, _ in losses],
        "loss": [loss for _, loss in losses],
        "evalSteps": [step for step, _ in evaluations],
        "evalLoss": [loss for _, loss in evaluations],
    }


def _merge(old: list[tuple[int, float]], new: list[tuple[int, float]]) -> list[tuple[int, float]]:
    merged = dict(old)
    for step, value in new:
        if merged and step <= max(merged):
            merged = {known: kept for known, kept in merged.items() if known < step}
        merged[step] = round(value, _DIGITS)
    return thinned(sorted(merged.items()))


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most CURVE_POINTS of ``points``, evenly spread; the first and the newest always stay."""
    if len(points) <= CURVE_POINTS:
        return points
    span = len(points) - 1
    return [points[round(i * span / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]


def progress_due(stored: Mapping[str, Any], report: ProgressReport | None, every_seconds: float) -> bool:
    """Whether ``report`` is to be written now: it is newer, and the last one is old enough."""
    if report is None:
        return False
    before, after = parse_time(stored.get("updatedTime")), parse_time(report.received_at)
    if before is None or after is None:
        return True
    return after - before >= timedelta(seconds=every_seconds)


def progress_status(
    stored: Mapping[str, Any], report: ProgressReport, attempt: int, ranks: int
) -> dict[str, Any]:
    """status.progress from ``report``; figures that it lacks keep their last known value."""
    values = report.values
    step, total = values.get("step"), values.get("total_steps")
    speed = values.get("tokens_per_second")
    received = parse_time(report.received_at)
    fresh = {
        "step": step,
        "totalSteps": total,
        "steps": f"{step}/{total}" if step is not None and total else None,
        "epoch": values.get("epoch"),
        "percent": report.percent,
        "loss": values.get("loss"),
        "evalLoss": values.get("eval_loss"),
        "learningRate": values.get("learning_rate"),
        "gradNorm": values.get("grad_norm"),
        "tokensPerSecond": speed,
        "tokensPerSecondPerGpu": speed / ranks if speed is not None else None,
        "estimatedCompletionTime": timestamp(received + timedelta(seconds=report.remaining_seconds))
        if received is not None and report.remaining_seconds is not None
        else None,
        "lastCheckpointStep": values.get("last_checkpoint_step"),
        "attempt": attempt,
        "updatedTime": report.received_at,
    }
    return {**stored, **{key: value for key, value in fresh.items() if value is not None}}


def last_advance(
    status: Mapping[str, Any], started_at: str, report: ProgressReport | None
) -> datetime | None:
    """When the current attempt last made a step, as far as is known."""
    times = [parse_time(started_at), parse_time((status.get("progress") or {}).get("updatedTime"))]
    if report is not None:
        times.append(parse_time(report.advanced_at))
    known = [moment for moment in times if moment is not None]
    return max(known) if known else None
