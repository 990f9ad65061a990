"""The loss curve and progress in status: merged over restarts, thinned to what a status may hold. Pure."""

from __future__ import annotations

import math
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
    came later, so that steps only rise. Figures that are no numbers are left out.
    """
    points = [point for point in points if point[0] >= 0]
    losses = _merge(
        list(zip(curve.get("steps") or [], curve.get("loss") or [], strict=False)),
        [(step, loss) for step, loss, _ in points if loss is not None and math.isfinite(loss)],
    )
    evaluations = _merge(
        list(zip(curve.get("evalSteps") or [], curve.get("evalLoss") or [], strict=False)),
        [(step, loss) for step, _, loss in points if loss is not None and math.isfinite(loss)],
    )
    return {
        "steps": [step for step, _ in losses],
        "loss": [loss for _, loss in losses],
        "evalSteps": [step for step, _ in evaluations],
        "evalLoss": [loss for _, loss in evaluations],
    }


def _merge(old: list[tuple[int, float]], new: list[tuple[int, float]]) -> list[tuple[int, float]]:
    merged = list(old)
    for step, value in new:
        while merged and merged[-1][0] >= step:
            merged.pop()
        merged.append((step, round(value, _DIGITS)))
    return thinned(merged)


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most CURVE_POINTS of ``points`` (their steps rise), spread over the steps; the first and the newest
    always stay.

    One point is kept of each stretch of steps. Stretches are a power of two long and begin at its multiples,
    so that thinning a thinned curve again, point after point, keeps the spread.
    """
    if len(points) <= CURVE_POINTS:
        return points
    first, newest = points[0], points[-1]
    stretch = 1
    while newest[0] // stretch - first[0] // stretch + 1 > CURVE_POINTS - 2:
        stretch *= 2
    kept = {step // stretch: (step, value) for step, value in reversed(points)}
    return sorted({first, *kept.values(), newest})


def sound(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that a status may not hold: None, NaN, infinities, numbers below zero.

    Losses may be below zero; everything that is counted or measured may not.
    """
    return {key: value for key, value in values.items() if _is_sound(key, value)}


def _is_sound(key: str, value: Any) -> bool:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return not isinstance(value, int) or value >= 0


def seconds_until_due(
    stored: Mapping[str, Any], report: ProgressReport, attempt: int, every_seconds: float
) -> float | None:
    """In how many seconds ``report`` is to be written: 0 or less now, None when it says nothing new.

    A gang that hangs may go on posting the same step; that is no progress and is not written.
    """
    if stored.get("attempt") != attempt:
        return 0.0
    if not _is_news(stored, report):
        return None
    before, after = parse_time(stored.get("updatedTime")), parse_time(report.received_at)
    if before is None or after is None or after < before:
        return 0.0
    return every_seconds - (after - before).total_seconds()


def _is_news(stored: Mapping[str, Any], report: ProgressReport) -> bool:
    """Whether ``report`` tells of a step (or, from a stock client, a percentage) that isn't stored."""
    told = {"step": report.values.get("step"), "percent": report.percent}
    return any(value is not None and value != stored.get(key) for key, value in told.items())


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
    return {**stored, **sound(fresh)}


def last_advance(
    status: Mapping[str, Any], attempt: Mapping[str, Any], report: ProgressReport | None
) -> datetime | None:
    """When the current attempt last made a step, as far as is known."""
    stored: Mapping[str, Any] = status.get("progress") or {}
    current = stored.get("attempt") == attempt.get("number")
    times = [parse_time(attempt.get("startedAt")), parse_time(stored.get("updatedTime")) if current else None]
    if report is not None and (not current or _is_news(stored, report)):
        times.append(parse_time(report.advanced_at))
    known = [moment for moment in times if moment is not None]
    return max(known) if known else None
