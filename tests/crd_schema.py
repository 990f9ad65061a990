"""Judges a status offline as the API server would: what it would refuse, and what it would silently prune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunewright.api.crd import root_schema
from tunewright.api.schema import Schema

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def status_problems(status: Mapping[str, Any]) -> list[str]:
    """One line per field that the CRD does not hold (it would be pruned) or not so (it would be refused)."""
    return list(_problems(dict(status), root_schema()["properties"]["status"], "status"))


def _problems(value: Any, schema: Schema, path: str) -> Iterator[str]:
    kind: str = schema["type"]
    is_kind = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not is_kind:
        yield f"{path}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get(
        "maximum", value
    ):
        yield f"{path}: {value!r} is out of bounds"
    if kind == "string" and not schema.get("minLength", 0) <= len(value) <= schema.get(
        "maxLength", len(value)
    ):
        yield f"{path}: has {len(value)} characters"
    if kind == "array":
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: has {len(value)} entries"
        for index, item in enumerate(value):
            yield from _problems(item, schema["items"], f"{path}[{index}]")
    if kind == "object":
        yield from _object_problems(value, schema, path)


def _object_problems(value: dict[str, Any], schema: Schema, path: str) -> Iterator[str]:
    fields = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: is required"
    for name, item in value.items():
        if name not in fields:
            yield f"{path}.{name}: is not in the CRD and would be pruned"
        else:
            yield from _problems(item, fields[name], f"{path}.{name}")
