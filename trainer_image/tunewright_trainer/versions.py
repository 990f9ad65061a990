"""The library versions that a result depends on, for manifests and model cards."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import tunewright_trainer

_PACKAGES = ("torch", "transformers", "trl", "peft", "deepspeed", "accelerate")


@cache
def versions() -> dict[str, str]:
    """Name to version, of Python, of this package and of the libraries that are installed."""
    found = {"python": platform.python_version(), "tunewright_trainer": tunewright_trainer.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
