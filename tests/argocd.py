"""Runs the chart's health rule as Argo CD does: in a real Lua 5.1, with the resource as ``obj``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime

RULE = Path(__file__).resolve().parents[1] / "charts" / "tunewright" / "files" / "argocd-health.lua"


@cache
def _rule() -> tuple[LuaRuntime, Any]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    return lua, lua.eval(f"function(argument) obj = argument; {RULE.read_text()} end")


def health(resource: dict[str, Any]) -> tuple[str, str]:
    """Status (``Healthy``, ``Progressing``, ``Degraded``, ``Suspended``) and message for ``resource``."""
    lua, rule = _rule()
    answer = rule(_as_lua(lua, resource))
    return str(answer["status"]), str(answer["message"])


def _as_lua(lua: LuaRuntime, value: Any) -> Any:
    """Tables all the way down; None becomes an absent key, as null does in Argo CD."""
    if isinstance(value, dict):
        return lua.table_from({key: _as_lua(lua, inner) for key, inner in value.items() if inner is not None})
    if isinstance(value, list | tuple):
        return lua.table_from([_as_lua(lua, inner) for inner in value])
    return value
