"""What every spec model shares: strictness, camelCase names, and rules told once for server and client.

A rule stands next to the model that it judges, in CEL for the API server and in Python for everything
offline, under one message. The tables of ``tests/unit/api/cases.py`` hold the two to the same verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

RULES_KEY = "x-kubernetes-validations"


def _add_rule(schema: JsonSchemaValue, cel: str, message: str) -> JsonSchemaValue:
    schema.setdefault(RULES_KEY, []).append({"rule": cel, "message": message})
    return schema


@dataclass(frozen=True)
class Rule:
    """A rule over several fields of one model."""

    cel: str
    """``self`` is the model; optional fields need ``has()``."""
    holds: Callable[[Any], bool]
    """The same in Python, over the model."""
    message: str
    """One sentence: what to write instead."""


class SpecModel(BaseModel):
    """Base of all spec models: immutable, refuses unknown fields, converts no types."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """As the API server does: a field that is null is a field that is not there."""
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.RULES:
            if not rule.holds(self):
                raise rule_error(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        json_schema = handler.resolve_ref_schema(handler(schema))
        for rule in cls.RULES:
            _add_rule(json_schema, rule.cel, rule.message)
        return json_schema


def rule_error(message: str) -> PydanticCustomError:
    """A validation error whose text is ``message`` and nothing else."""
    return PydanticCustomError("rule", "{message}", {"message": message})


@dataclass(frozen=True)
class Matches:
    """Annotation of a string that must match ``regex`` as a whole; RE2 and Python syntax.

    A rule instead of ``pattern``: the server's words for a pattern are the expression itself.
    """

    regex: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _add_rule(handler(schema), f"self.matches(r'^(?:{self.regex})$')", self.message)

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.regex, value):
            raise rule_error(self.message)
        return value


@dataclass(frozen=True)
class KeysMatch:
    """Annotation of a map whose keys must match ``regex`` as a whole and stay short."""

    regex: str
    max_length: int
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        cel = f"self.all(k, k.size() <= {self.max_length} && k.matches(r'^(?:{self.regex})$'))"
        return _add_rule(handler(schema), cel, self.message)

    def _check(self, value: dict[str, Any]) -> dict[str, Any]:
        if any(len(key) > self.max_length or not re.fullmatch(self.regex, key) for key in value):
            raise rule_error(self.message)
        return value


@dataclass(frozen=True)
class IntOrString:
    """Annotation of a field that may be written as a number or as a string, compared as a string.

    The annotated type is what Python sees: digits become ``int`` with ``digits_to_int``, else all
    becomes ``str``.
    """

    regex: str
    message: str
    digits_to_int: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._normalise, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        int_or_string: JsonSchemaValue = {"x-kubernetes-int-or-string": True, "maxLength": 32}
        return _add_rule(int_or_string, f"string(self).matches(r'^(?:{self.regex})$')", self.message)

    def _normalise(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise rule_error(self.message)
        text = str(value)
        if not re.fullmatch(self.regex, text):
            raise rule_error(self.message)
        return int(text) if self.digits_to_int and text.isdecimal() else text


_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches(_NAME, "write the name of an object: lower-case letters, digits, '-' and '.'"),
]

Quantity = Annotated[
    str,
    IntOrString(
        r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][-+]?[0-9]+)?",
        "write a quantity such as 16, 500m or 128Gi",
    ),
]


class SecretRef(SpecModel):
    """Names a Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""


# ---------------------------------------------------------------------------------------------------
# URIs. Where an address ends in a folder that we write, globs make no sense and are refused.
# ---------------------------------------------------------------------------------------------------
_PRINTABLE = r"[^\x00-\x1f\x7f]"
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HF = rf"hf://{_SEGMENT}/{_SEGMENT}(@{_SEGMENT})?(/{_PRINTABLE}*)?"
_PVC = rf"pvc://{_NAME}(/{_PRINTABLE}*)?"
_HTTPS = r"https://[A-Za-z0-9][^\x00-\x20\x7f]*"
_FOLDER = rf"pvc://{_NAME}(/[^\x00-\x1f\x7f*?\[\]]*)?"


@dataclass(frozen=True)
class NoParentSegment:
    """Annotation of a URI that must not climb out of its root."""

    message: str = "remove the '..' from the path"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return _add_rule(handler(schema), "!self.split('/').exists(s, s == '..')", self.message)

    def _check(self, value: str) -> str:
        if ".." in value.split("/"):
            raise rule_error(self.message)
        return value


ModelUri = Annotated[
    str,
    Field(max_length=1024),
    Matches(f"{_HF}|{_FOLDER}", "write the model as hf://organisation/name[@revision] or pvc://claim/folder"),
    NoParentSegment(),
]
DataUri = Annotated[
    str,
    Field(max_length=1024),
    Matches(
        f"{_HF}|{_PVC}|{_HTTPS}",
        "write the source as hf://organisation/name/file, pvc://claim/path or https://host/path;"
        " a ConfigMap goes in configMapRef",
    ),
    NoParentSegment(),
]
FolderUri = Annotated[
    str,
    Field(max_length=1024),
    Matches(_FOLDER, "write the place as pvc://claim or pvc://claim/folder"),
    NoParentSegment(),
]
