"""The story of a job: what should happen next, from what is known now. Pure; start with ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tunewright.api.problems import explain
from tunewright.api.spec import parse_spec
from tunewright.children.owner import Owner
from tunewright.core import names
from tunewright.core import status as statuses
from tunewright.core.lifecycle import TERMINAL
from tunewright.core.model import Event, Manifest, Plan, World
from tunewright.core.observe import observe
from tunewright.core.outcome import Context, Outcome, still_runs
from tunewright.core.settings import OperatorSettings
from tunewright.core.stages import ends
from tunewright.core.stages.export import export
from tunewright.core.stages.planning import make_plan
from tunewright.core.stages.prepare import accept, prepare
from tunewright.core.stages.train import train

STAGES = (accept, prepare, make_plan, train)


def plan(world: World, settings: OperatorSettings, now: datetime) -> Plan:
    """Everything to be done for one job now. The same input gives the same plan."""
    metadata = world.job["metadata"]
    stored: Mapping[str, Any] = world.job.get("status") or {}
    context = _context(world, settings, now)
    decided = decide(context)

    deleting = "deletionTimestamp" in metadata
    has_finalizer = names.FINALIZER in (metadata.get("finalizers") or ())
    over = deleting or decided.phase in TERMINAL
    ended_before = deleting or ends.stored_phase(context) in TERMINAL
    at_rest = ended_before and not decided.delete and not still_runs(context.observed)
    status = statuses.build(stored, metadata.get("generation", 1), decided, now)
    status_due, requeue = _status_due(world, stored, status, decided, settings)
    return Plan(
        confirm_over=decided.confirm_over,
        add_finalizer=not over and not has_finalizer,
        create=() if over else decided.create,
        delete=decided.delete,
        status=status if status_due else None,
        # Kept until the end is stored and nothing runs: an operator that dies in between finds it again.
        remove_finalizer=has_finalizer and at_rest,
        delete_self=not deleting and not has_finalizer and at_rest and ends.time_to_live_is_over(context),
        events=_events(stored, decided),
        requeue_after_seconds=_soonest(
            decided.requeue_after_seconds,
            requeue,
            context.observed.next_node_loss_seconds,
            None if over else ends.seconds_to_deadline(context),
        ),
    )


def decide(context: Context) -> Outcome:
    """Where the job is and what has to happen: what ends it first, then its stages in order."""
    if "deletionTimestamp" in context.world.job["metadata"]:
        return ends.terminate(context)
    for end in (ends.finished, ends.refused, ends.deadline, ends.suspend):
        if (ended := end(context)) is not None:
            return ended
    for stage in STAGES:
        answer = stage(context)
        if isinstance(answer, Outcome):
            return answer
        context = answer
    return export(context)


def _context(world: World, settings: OperatorSettings, now: datetime) -> Context:
    parsed, refusal = None, ""
    try:
        parsed = parse_spec(world.job.get("spec") or {})
    except ValidationError as error:
        refusal = explain(error)[0]
    return Context(
        world=world,
        observed=observe(world, now, settings.node_lost_seconds),
        owner=Owner.of(world.job),
        parsed=parsed,
        refusal=refusal,
        settings=settings,
        now=now,
        status=world.job.get("status") or {},
    )


def _status_due(
    world: World, stored: Mapping[str, Any], status: Manifest, decided: Outcome, settings: OperatorSettings
) -> tuple[bool, float | None]:
    """Whether ``status`` is written now, and else when.

    Changes of phase, reason, attempts, results or progress are written at once; mere counts and wording wait
    until the last write is ``status_seconds`` old, so that writes don't grow with the number of pods.
    """
    if status == stored:
        return False, None
    if statuses.changed(stored, decided) or _without_wording(status) != _without_wording(stored):
        return True, None
    since = world.seconds_since_status_write
    if since is None or since >= settings.status_seconds:
        return True, None
    return False, settings.status_seconds - since


def _without_wording(status: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in status.items() if key not in ("message", "workers", "nodes")}
    rest["conditions"] = [
        (condition["type"], condition["status"], condition["reason"])
        for condition in rest.get("conditions") or ()
    ]
    return rest


def _events(stored: Mapping[str, Any], decided: Outcome) -> tuple[Event, ...]:
    if not statuses.changed(stored, decided):
        return ()
    return (
        Event(
            "Warning" if decided.warning else "Normal", decided.reason, decided.message, str(decided.phase)
        ),
    )


def _soonest(*delays: float | None) -> float | None:
    """The shortest of the delays in seconds that are given."""
    return min((seconds for seconds in delays if seconds is not None), default=None)
