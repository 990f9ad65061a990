"""Turns pydantic's JSON schema into the structural schema that a CustomResourceDefinition asks for.

It raises on anything it does not understand: a keyword silently dropped would be a check silently lost.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = {
    "type",
    "format",
    "description",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
}
_HANDLED = {"title", "default", "const", "exclusiveMinimum", "exclusiveMaximum"}
_HANDLED |= {"properties", "additionalProperties", "items"}


class SchemaError(Exception):
    """A model uses something that a structural schema cannot say."""


def structural_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The structural schema of ``model``; without ``defaults`` none is written (a status has none).

    Inside list items there are never defaults: they would make an unchanged re-apply a change and let
    server-side apply conflict. Descriptions name them there. Raises SchemaError.
    """
    raw = model.model_json_schema(by_alias=True)
    return _Converter(raw.pop("$defs", {})).convert(raw, model.__name__, defaults=defaults, told=False)


class _Converter:
    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, node: Schema, path: str, *, defaults: bool, told: bool) -> Schema:
        """``told``: defaults go into descriptions, since the schema may not hold them here."""
        node = self._flatten(node, path)
        unknown = node.keys() - _KEPT - _HANDLED
        if unknown:
            raise SchemaError(f"{path}: a structural schema has no {', '.join(sorted(unknown))}")
        result: Schema = {key: node[key] for key in node if key in _KEPT}
        self._convert_scalar(node, result, path)
        if "properties" in node:
            result["properties"] = {
                name: self.convert(child, f"{path}.{name}", defaults=defaults, told=told)
                for name, child in node["properties"].items()
            }
        if node.get("additionalProperties", False) is not False:
            extra = node["additionalProperties"]
            if not isinstance(extra, dict):
                raise SchemaError(f"{path}: give the map's values a type")
            result["additionalProperties"] = self.convert(extra, f"{path}[]", defaults=False, told=told)
        if "items" in node:
            result["items"] = self.convert(node["items"], f"{path}[]", defaults=False, told=defaults or told)
            result.setdefault("x-kubernetes-list-type", "atomic")
        self._convert_default(node, result, defaults=defaults, told=told)
        return result

    def _flatten(self, node: Schema, path: str) -> Schema:
        """Without $ref and without ``anyOf[X, null]``; what stands beside them wins."""
        node = dict(node)
        while "$ref" in node or "anyOf" in node:
            if "$ref" in node:
                inner = self._definitions[node.pop("$ref").removeprefix("#/$defs/")]
            else:
                choices = [c for c in node.pop("anyOf") if c.get("type") != "null"]
                if len(choices) != 1:
                    raise SchemaError(f"{path}: a union of types; use optional members and a rule instead")
                inner = choices[0]
            node = {**inner, **node}
        return node

    @staticmethod
    def _convert_scalar(node: Schema, result: Schema, path: str) -> None:
        if "const" in node:
            result["enum"] = [node["const"]]
        for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if bound in node and plain in node:
                raise SchemaError(f"{path}: both {bound} and {plain}")
            if bound in node:
                result[plain] = node[bound]
                result[bound] = True
        if node.get("type") == "integer":
            result["format"] = "int64"

    @staticmethod
    def _convert_default(node: Schema, result: Schema, *, defaults: bool, told: bool) -> None:
        default = node.get("default")
        if default is None:
            return
        if result.get("type") == "object":
            # Spelt out, not {}: the server judges a default by the rules before it fills in the members'.
            members = result.get("properties", {}).items()
            default = {name: member["default"] for name, member in members if "default" in member}
            if not default:
                return
        if defaults:
            result["default"] = default
        elif told:
            text = default if isinstance(default, str) else json.dumps(default)
            result["description"] = f"{result['description']} Default: {text}."
