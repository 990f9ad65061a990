"""The rules that hold a spec as it was created, generated from the schema so that no field is forgotten."""

from __future__ import annotations

from tunewright.api.schema import Schema

MESSAGE = (
    "spec.{name} can't be changed after creation, only spec.lifecycle can:"
    " delete the job and create it again, or create another with a new name"
)


def immutability_rules(spec: Schema, mutable: frozenset[str]) -> list[dict[str, str]]:
    """Validations for the ``spec`` schema: one per field outside ``mutable``, so that the answer names it.

    They stand at ``spec``, since a rule on the field itself would not see it come or go.
    """
    required = spec.get("required", [])
    return [
        {
            "rule": _unchanged(schema, name, optional=name not in required),
            "message": MESSAGE.format(name=name),
            "fieldPath": f".{name}",
        }
        for name, schema in spec["properties"].items()
        if name not in mutable
    ]


def _unchanged(schema: Schema, path: str, *, optional: bool) -> str:
    """A CEL condition: the field is there as before, with the value it had."""
    same = _same_value(schema, path)
    if not optional:
        return f"({same})"
    return f"(has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {same}))"


def _same_value(schema: Schema, path: str) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        # 3 and "3" are one value; compared as they are they would differ.
        return f"string(self.{path}) == string(oldSelf.{path})"
    if not _holds_int_or_string(schema):
        return f"self.{path} == oldSelf.{path}"
    required = schema.get("required", [])
    members = (
        _unchanged(member, f"{path}.{name}", optional=name not in required)
        for name, member in schema["properties"].items()
    )
    return f"({' && '.join(members)})"


def _holds_int_or_string(schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return True
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return False
    return any(_holds_int_or_string(member) for member in schema.get("properties", {}).values())
