"""The story of a job: what should happen next, from what is known now. Pure; start with ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from tunewright.api.spec import parse_spec
from tunewright.children.owner import Owner
from tunewright.core import names
from tunewright.core import status as statuses
from tunewright.core.lifecycle import ACCEPTED, TERMINAL, Phase
from tunewright.core.model import Event, Manifest, Plan, World
from tunewright.core.observe import observe
from tunewright.core.outcome import Context, Outcome, live_pods
from tunewright.core.settings import OperatorSettings
from tunewright.core.stages import ends
from tunewright.core.stages.export import export
from tunewright.core.stages.planning import make_plan
from tunewright.core.stages.prepare import accept, prepare
from tunewright.core.stages.train import train

STAGES = (accept, prepare, make_plan, train)


def plan(world: World, settings: OperatorSettings, now: datetime) -> Plan:
    """Everything to be done for one job now. The same input gives the same plan."""
    job = world.job
    stored: Mapping[str, Any] = job.get("status") or {}
    try:
        context = _context(world, settings, now)
    except ValidationError as error:
        return _refused(world, error, now)

    decided = decide(context)

    deleting = "deletionTimestamp" in job["metadata"]
    has_finalizer = names.FINALIZER in (job["metadata"].get("finalizers") or ())
    at_rest = not live_pods(context.observed) and not decided.delete
    over = deleting or decided.phase in TERMINAL
    ended_before = deleting or ends.stored_phase(context) in TERMINAL
    status = statuses.build(stored, job["metadata"].get("generation", 1), decided, now)
    status_due, requeue = _status_due(world, stored, status, decided, settings)
    return Plan(
        add_finalizer=not over and not has_finalizer,
        create=() if over else decided.create,
        delete=decided.delete,
        status=status if status_due else None,
        # Kept until the end is stored and nothing runs: an operator that dies in between finds it again.
        remove_finalizer=has_finalizer and ended_before and at_rest,
        delete_self=not deleting and ended_before and at_rest and ends.time_to_live_is_over(context),
        events=_events(stored, decided),
        requeue_after_seconds=_sooner(decided.requeue_after_seconds, requeue),
    )


def decide(context: Context) -> Outcome:
    """Where the job is and what has to happen: what ends it first, then its stages in order."""
    if "deletionTimestamp" in context.world.job["metadata"]:
        return ends.terminate(context)
    if (ended := ends.finished(context)) is not None:
        return ended
    if (late := ends.deadline(context)) is not None:
        return late
    if (suspended := ends.suspend(context)) is not None:
        return suspended
    for stage in STAGES:
        answer = stage(context)
        if isinstance(answer, Outcome):
            return answer
        context = answer
    return export(context)


def _context(world: World, settings: OperatorSettings, now: datetime) -> Context:
    return Context(
        world=world,
        observed=observe(world, now, settings.node_lost_seconds),
        owner=Owner.of(world.job),
        spec=parse_spec(world.job["spec"]),
        settings=settings,
        now=now,
        status=world.job.get("status") or {},
    )


def _refused(world: World, error: ValidationError, now: datetime) -> Plan:
    """A spec that the schema let through and the models don't: an older CRD, or a newer operator."""
    stored: Mapping[str, Any] = world.job.get("status") or {}
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = f"spec.{where}: {first['msg']}. Create the job anew with this mended."
    decided = Outcome(
        phase=Phase.FAILED,
        reason="SpecInvalid",
        message=message,
        status=stored,
        warning=True,
        notes={ACCEPTED: ("False", "SpecInvalid", message)},
    )
    status = statuses.build(stored, world.job["metadata"].get("generation", 1), decided, now)
    deleting = "deletionTimestamp" in world.job["metadata"]
    return Plan(
        status=None if deleting or status == stored else status,
        remove_finalizer=deleting and names.FINALIZER in (world.job["metadata"].get("finalizers") or ()),
        events=() if deleting else _events(stored, decided),
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


def _sooner(first: float | None, second: float | None) -> float | None:
    given = [seconds for seconds in (first, second) if seconds is not None]
    return min(given) if given else None
