"""What is wrong with a manifest, one sentence per problem, for everything that reads manifests offline."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunewright.api.crd import NAME_MESSAGE, NAME_PATTERN, spec_schema
from tunewright.api.schema import Schema
from tunewright.api.spec import parse_spec
from tunewright.core import names

_TOP_LEVEL = {"apiVersion", "kind", "metadata", "spec", "status"}
_SAID_PLAINLY = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string: put it in quotes",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be a map",
}
_BOUNDS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt:g}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must not be empty",
}

_cached_spec_schema = functools.cache(spec_schema)


def manifest_problems(manifest: Mapping[str, Any]) -> list[str]:
    """Sentences about a FineTuneJob manifest, each led by the field it is about; empty when it is valid."""
    found = [
        f"{field}: {_unknown(field, _TOP_LEVEL, {})}"
        for field in sorted(manifest.keys() - _TOP_LEVEL, key=str)
    ]
    if manifest.get("apiVersion") != names.API_VERSION:
        found.append(f"apiVersion: write {names.API_VERSION}")
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if not name_is_valid(metadata.get("name")) and "generateName" not in metadata:
        found.append(f"metadata.name: {NAME_MESSAGE}")
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        return [*found, "spec: is required; write at least model, dataset and output"]
    return found + spec_problems(spec)


def name_is_valid(name: object) -> bool:
    """Whether a FineTuneJob may be called so; the API server holds the same rule."""
    if not isinstance(name, str) or len(name) > names.MAX_JOB_NAME_LENGTH:
        return False
    return re.fullmatch(NAME_PATTERN.strip("^$"), name) is not None


def spec_problems(spec: Mapping[str, Any]) -> list[str]:
    """The same about the ``spec`` of a manifest."""
    try:
        parse_spec(spec)
    except ValidationError as error:
        return explain(error)
    return []


def explain(error: ValidationError) -> list[str]:
    """A refused spec's errors as sentences such as ``spec.training.epoch: no such field; …``."""
    schema = _cached_spec_schema()
    return [
        f"{_path(details['loc'], schema)}: {_sentence(details, schema)}"
        for details in error.errors(include_url=False, include_context=True)
    ]


def _path(location: tuple[int | str, ...], schema: Schema) -> str:
    """``spec.dataset.train[0].source``, ``spec.podTemplate.labels[team]``: as the API server writes it."""
    path = "spec"
    for depth, part in enumerate(location):
        is_key = isinstance(part, int) or "additionalProperties" in _descend(schema, location[:depth])
        path += f"[{part}]" if is_key else f".{part}"
    return path


def _sentence(details: ErrorDetails, schema: Schema) -> str:
    kind, value = details["type"], details["input"]
    here = _descend(schema, details["loc"])
    if kind == "extra_forbidden":
        parent = _descend(schema, details["loc"][:-1])
        return _unknown(str(details["loc"][-1]), parent.get("properties", {}), schema)
    if kind == "missing":
        return f"is required. {here.get('description', '')}".strip()
    if kind == "literal_error":
        choices = [str(choice) for choice in here.get("enum", [])]
        return f"write {_any_of(choices)}, not {value!r}{_nearest(str(value), choices)}"
    if kind in _SAID_PLAINLY:
        return (
            f"{_SAID_PLAINLY[kind]}, not {value!r}"
            if value is not None
            else f"{_SAID_PLAINLY[kind]}, not empty"
        )
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**details["ctx"])
    message = details["msg"]
    return message if kind == "rule" else message[:1].lower() + message[1:]


def _descend(schema: Schema, location: tuple[int | str, ...]) -> Schema:
    """The schema of the field at ``location``; empty where there is none."""
    for part in location:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
    return schema


def _unknown(name: str, siblings: Any, schema: Schema) -> str:
    """No such field, and the nearest one: beside it, or of the same name elsewhere in the spec."""
    near = _nearest(name, list(siblings))
    if not near:
        elsewhere = [path for path in _paths(schema, "spec") if _bare(path).lower() == name.lower()]
        near = f"; did you mean {_any_of(elsewhere)}?" if elsewhere else ""
    return f"no such field{near}" if near else f"no such field; there are {', '.join(sorted(siblings))}"


def _paths(schema: Schema, path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        if field.get("x-kubernetes-preserve-unknown-fields"):
            continue
        yield from _paths(field, f"{path}.{name}")
        yield from _paths(field.get("items", {}), f"{path}.{name}[]")


def _bare(path: str) -> str:
    return path.rsplit(".", 1)[1]


def _nearest(name: str, choices: list[str]) -> str:
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(
        name.lower().replace("_", "").replace("-", ""), by_lower, n=1, cutoff=0.7
    )
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _any_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
