"""Reads Kubernetes quantities: ``16``, ``7.5``, ``16000m``, ``1e1`` and ``2k`` all tell a number of CPUs."""

from __future__ import annotations

import re
from decimal import ROUND_FLOOR, Decimal

_FORM = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]+)|(?P<suffix>[a-zA-Z]+))?"
)
_DECIMAL = {"": 0, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LARGEST_EXPONENT = 18
"""Kubernetes holds quantities in 64 bits; and ``1e999999999`` must not become a number of that length."""


def whole_cpus(quantity: str) -> int:
    """The whole CPUs in ``quantity``, rounded down. Raises ValueError for what is no quantity."""
    found = _FORM.fullmatch(quantity)
    suffix = found["suffix"] or "" if found else ""
    if found is None or not (suffix in _DECIMAL or suffix in _BINARY):
        raise ValueError(f"{quantity!r} is no quantity; write one such as 16, 7.5 or 500m")
    power = Decimal(found["exponent"] or _DECIMAL.get(suffix, 0))
    exponent = int(max(Decimal(-_LARGEST_EXPONENT), min(Decimal(_LARGEST_EXPONENT), power)))
    amount = Decimal(found["number"]).scaleb(exponent) * 2 ** _BINARY.get(suffix, 0)
    return int(min(amount, Decimal(2**63 - 1)).to_integral_value(ROUND_FLOOR))
