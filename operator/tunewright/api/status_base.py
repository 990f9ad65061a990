"""What every status model shares: camelCase names, tolerance when read, and bounded types."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _finite_or_none(value: Any) -> Any:
    """JSON has no NaN: a figure that is none is left out."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite_or_none)]
Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
ShortText = Annotated[str, Field(max_length=256)]
Sentence = Annotated[str, Field(max_length=2048)]
Uri = Annotated[str, Field(max_length=2048)]


class StatusModel(BaseModel):
    """Base of all status models."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def dump(self) -> dict[str, Any]:
        """As a plain camelCase dict without nulls, ready to be written."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
