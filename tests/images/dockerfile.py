"""Reads a Dockerfile into stages, as far as ours go; anything else in one is an error, not a guess."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One RUN, with the cache folders it mounts and the environment it sees."""

    command: str
    cache_folders: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Copy:
    """One COPY: from the build context, or from another stage."""

    sources: tuple[str, ...]
    target: str
    stage: str | None


@dataclass
class Stage:
    """A stage: the base it starts from, its steps, and the settings that a container of it gets."""

    name: str
    base: str
    steps: list[Run | Copy] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def parse(path: Path, arguments: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of the Dockerfile at ``path`` in order, built with ``arguments``.

    Raises ValueError for an instruction or a flag that is not understood.
    """
    given = dict(arguments or {})
    reader = _Reader(given)
    for keyword, rest in _instructions(path.read_text()):
        method = getattr(reader, f"on_{keyword.lower()}", None)
        if method is None:
            raise ValueError(f"{path}: {keyword} is not understood")
        method(rest)
    return reader.stages


def _instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction; comment lines go, continued lines are joined as Docker does."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    parts = (line.strip().split(None, 1) for line in joined.splitlines() if line.strip())
    return [(part[0], part[1]) for part in parts]


def _expand(text: str, values: Mapping[str, str]) -> str:
    """``${NAME}`` and ``$NAME``; a name that is not set is an error."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: values[match[1] or match[2]], text)


class _Reader:
    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given
        self.stages: list[Stage] = []
        self.before_from: dict[str, str] = {}

    @property
    def stage(self) -> Stage:
        return self.stages[-1]

    def on_arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        scope = self.stage.arguments if self.stages else self.before_from
        value = self.given.get(name, "".join(shlex.split(default)))
        scope[name] = _expand(value, self.before_from)

    def on_from(self, rest: str) -> None:
        base, *alias = _expand(rest, self.before_from).split()
        name = alias[1] if alias else f"stage-{len(self.stages)}"
        inherited = next((stage for stage in self.stages if stage.name == base), None)
        self.stages.append(Stage(name, base, env=dict(inherited.env) if inherited else {}))

    def on_run(self, rest: str) -> None:
        folders = []
        while found := re.match(r"--mount=type=cache,target=(\S+)\s+", rest):
            folders.append(found[1])
            rest = rest[found.end() :]
        if rest.startswith("--"):
            raise ValueError(f"RUN {rest.split()[0]} is not understood")
        env = self.stage.env | self.stage.arguments
        self.stage.steps.append(Run(rest, tuple(folders), env))

    def on_copy(self, rest: str) -> None:
        *sources, target = _expand(rest, self.stage.env | self.stage.arguments).split()
        stage = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else None
        if any(source.startswith("--") for source in sources):
            raise ValueError(f"COPY {rest} has flags that are not understood")
        self.stage.steps.append(Copy(tuple(sources), target, stage))

    def on_env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            self.stage.env[name] = _expand(value, self.stage.env | self.stage.arguments)

    def on_label(self, rest: str) -> None:
        if not all("=" in pair for pair in shlex.split(rest)):
            raise ValueError(f"LABEL {rest}")

    def on_workdir(self, rest: str) -> None:
        self.stage.workdir = rest

    def on_user(self, rest: str) -> None:
        self.stage.user = rest

    def on_entrypoint(self, rest: str) -> None:
        self.stage.entrypoint = json.loads(rest)

    def on_cmd(self, rest: str) -> None:
        self.stage.command = json.loads(rest)
