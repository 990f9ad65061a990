"""What has to hold of a FineTuneJob after each write, judged by rules of others than the code under test."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml

from tests.argocd import health
from tunewright.api.status import CURVE_POINTS, TIMELINE_ENTRIES, FineTuneJobStatus
from tunewright.core.lifecycle import LIFECYCLE, TERMINAL, Phase, phase_of
from tunewright.core.model import Manifest

CRD = Path(__file__).resolve().parents[3] / "crds" / "finetunejobs.yaml"


def kstatus(resource: Manifest) -> str:
    """The generic rules of cli-utils (pkg/kstatus/status/generic.go) with those of ``Ready``."""
    metadata, status = resource["metadata"], resource.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    if conditions.get("Reconciling", {}).get("status") == "True":
        return "InProgress"
    if conditions.get("Stalled", {}).get("status") == "True":
        return "Failed"
    if (ready := conditions.get("Ready")) is not None:
        return {"True": "Current", "False": "InProgress", "Unknown": "InProgress"}[ready["status"]]
    return "Current"


@functools.cache
def _section_schemas() -> dict[str, jsonschema.Draft202012Validator]:
    """Validators of status' fields, one each: long histories repeat most of them."""
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return {
        name: jsonschema.Draft202012Validator(_closed(section))
        for name, section in schema["properties"].items()
    }


def _closed(schema: Any) -> Any:
    """``schema`` with unknown fields forbidden: the API server would prune them, so they'd be lost."""
    if isinstance(schema, dict):
        schema = {key: _closed(value) for key, value in schema.items()}
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        return schema
    return [_closed(value) for value in schema] if isinstance(schema, list) else schema


@functools.lru_cache(maxsize=200_000)
def _section_is_valid(name: str, text: str) -> bool:
    section = json.loads(text)
    _section_schemas()[name].validate(section)
    FineTuneJobStatus.model_validate({name: section}, by_alias=True, by_name=False)
    return True


def check_schema(status: dict[str, Any]) -> None:
    """``status`` is one that the CRD's schema and the API's models take, with nothing to prune."""
    unknown = status.keys() - _section_schemas().keys()
    assert not unknown, f"the CRD has no {unknown}"
    for name, section in status.items():
        if name in ("timeline", "attempts", "conditions"):
            for entry in section:
                _section_is_valid(name, json.dumps([{**entry, **_fixed(entry)}], sort_keys=True))
        else:
            _section_is_valid(name, json.dumps(section, sort_keys=True))


def _fixed(entry: dict[str, Any]) -> dict[str, Any]:
    """Times made equal, so that entries which differ in nothing else are judged once."""
    times = ("time", "startedAt", "endedAt", "lastTransitionTime")
    for key in times:
        if key in entry:
            assert len(entry[key]) == 20, f"{key} is no RFC 3339 time: {entry[key]}"
    return {key: "2030-01-01T00:00:00Z" for key in times if key in entry}


def _for_argo(job: Manifest) -> Manifest:
    """``job`` without what the rule surely doesn't read: making it a Lua table takes its time."""
    bulky = ("plan", "model", "data", "curve", "timeline", "progress", "attempts")
    status = {key: value for key, value in job["status"].items() if key not in bulky}
    return {"metadata": job["metadata"], "status": status}


def check_status(job: Manifest) -> None:
    """All that tools and people conclude from the stored ``job`` agrees with the life-cycle table."""
    status = job["status"]
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    phase = Phase(status["phase"])
    row = LIFECYCLE[phase]
    assert len(conditions) == len(status["conditions"]), "a condition type stands twice"
    assert phase is phase_of(conditions)
    assert conditions["Ready"]["status"] == row.ready
    assert ("Reconciling" in conditions) == row.reconciling
    assert ("Stalled" in conditions) == row.stalled
    assert conditions.get("Reconciling", {}).get("status", "True") == "True"
    assert conditions["Running"]["status"] == ("True" if phase is Phase.RUNNING else "False")
    assert ("Succeeded" in conditions) == (phase is Phase.SUCCEEDED) or phase is Phase.TERMINATING
    assert ("Failed" in conditions) == (phase is Phase.FAILED) or phase is Phase.TERMINATING
    if not row.holds_nodes:
        assert conditions.get("NodesReady", {}).get("status", "False") == "False"
    assert kstatus(job) == row.kstatus, f"kstatus of {phase}"
    assert health(_for_argo(job))[0] == row.argo, f"Argo CD's health of {phase}"
    assert status["message"] == conditions["Ready"]["message"] != ""
    assert ("completedAt" in status) == (phase in TERMINAL) or phase is Phase.TERMINATING
    assert len(status["timeline"]) <= TIMELINE_ENTRIES
    assert status["timeline"][-1]["phase"] == phase
    assert status["timeline"][-1]["reason"] == conditions["Ready"]["reason"]
    curve = status.get("curve") or {}
    for steps, values in (("steps", "loss"), ("evalSteps", "evalLoss")):
        points = curve.get(steps, [])
        assert points == sorted(set(points)), "the curve's steps don't rise"
        assert len(points) == len(curve.get(values, [])) <= CURVE_POINTS
    numbers = [attempt["number"] for attempt in status.get("attempts", ())]
    assert numbers == sorted(set(numbers))
    assert all("endedAt" in attempt for attempt in status.get("attempts", ())[:-1]), "two attempts are open"
    check_schema(status)


def check_move(before: Manifest, after: Manifest) -> None:
    """What no write of the status may do to what was stored."""
    old, new = before.get("status") or {}, after["status"]
    was, now = Phase(old.get("phase", "Pending")), Phase(new["phase"])
    assert now is was or now in LIFECYCLE[was].followers, f"{was} -> {now}"
    for frozen in ("plan", "data", "model", "prepared", "startedAt", "completedAt"):
        assert frozen not in old or old[frozen] == new[frozen], f"{frozen} was changed"
    for account, count in (old.get("restarts") or {}).items():
        assert new["restarts"][account] >= count
    if attempts := old.get("attempts"):
        assert new["attempts"][-1]["number"] >= attempts[-1]["number"], "an attempt was forgotten"
