"""``tunewright render``: shows the objects that the operator would create for a job, without a cluster."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunewright.api.problems import manifest_problems
from tunewright.cli.manifests import ManifestError, read_manifests
from tunewright.core import names
from tunewright.core.model import Manifest, World
from tunewright.core.plan import plan
from tunewright.core.settings import OperatorSettings
from tunewright.settings import SettingsError, load_settings
from tunewright_trainer.contract import Facts

MOST_PASSES = 20
STAND_IN_UID = "00000000-0000-0000-0000-000000000000"


class _Dumper(yaml.SafeDumper):
    """Shows texts of several lines as such, and repeats what is the same instead of pointing to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand; its options carry ``run``."""
    parser = subparsers.add_parser(
        "render",
        help="print the objects that the operator would create",
        description="Prints, as YAML, the objects that the operator would create for the FineTuneJobs in"
        " FILE: those of the prepare step, and with --facts those of training too.",
    )
    parser.add_argument("file", metavar="FILE", help="YAML or JSON file, or - for standard input")
    parser.add_argument(
        "--facts",
        type=Path,
        metavar="FILE",
        help="what prepare found out, as JSON (the termination message of a prepare pod)",
    )
    parser.add_argument(
        "--namespace", "-n", default="default", help="namespace of jobs that name none (default: default)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the children; returns the exit status."""
    try:
        jobs = [job for job in read_manifests(options.file) if job.get("kind") == names.KIND]
        if not jobs:
            raise ManifestError(f"holds no {names.KIND}: write kind: {names.KIND}")
        facts = _read_facts(options.facts)
        settings = load_settings().core
    except (ManifestError, SettingsError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    status = 0
    for job in jobs:
        problems = manifest_problems(job)
        for problem in problems:
            print(f"{options.file}: {problem}", file=sys.stderr)
        if problems:
            status = 1
            continue
        children = render(_stored(job, options.namespace), settings, facts)
        yaml.dump_all(children, sys.stdout, Dumper=_Dumper, sort_keys=False, explicit_start=True)
    return status


def render(job: Manifest, settings: OperatorSettings, facts: Facts | None) -> list[Manifest]:
    """The children of ``job`` in order of creation: plans pass after pass, as if each had been carried out,
    and lets prepare end with ``facts``."""
    now = datetime.now(UTC)
    children: list[Manifest] = []
    world = World(job=job)
    for _ in range(MOST_PASSES):
        decided = plan(world, settings, now)
        if not decided.create and decided.status is None:
            break
        children += decided.create
        if decided.status is not None:
            job = job | {"status": json.loads(json.dumps(decided.status))}
        jobs = tuple(_as_stored(child) for child in children if child["kind"] == "Job")
        pods: tuple[Manifest, ...] = ()
        if facts is not None and jobs and not job.get("status", {}).get("data"):
            prepare = jobs[0]
            prepare["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
            pods = (_ended_pod(prepare, facts),)
        world = World(
            job=job,
            jobs=jobs,
            pods=pods,
            config_maps=_names_of(children, "ConfigMap"),
            services=_names_of(children, "Service"),
        )
    return children


def _read_facts(path: Path | None) -> Facts | None:
    if path is None:
        return None
    try:
        return Facts.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise ManifestError(f"--facts {path} does not hold what prepare answers with: {first}") from None


def _stored(job: Manifest, namespace: str) -> Manifest:
    """The manifest with what the API server would add."""
    metadata = {"namespace": namespace} | job["metadata"]
    added = {"uid": STAND_IN_UID, "resourceVersion": "1", "generation": 1}
    return {key: value for key, value in job.items() if key != "status"} | {"metadata": metadata | added}


def _as_stored(child: Manifest) -> Manifest:
    metadata: dict[str, Any] = child["metadata"] | {"uid": f"uid-{child['metadata']['name']}"}
    return child | {"metadata": metadata}


def _names_of(children: list[Manifest], kind: str) -> tuple[str, ...]:
    return tuple(child["metadata"]["name"] for child in children if child["kind"] == kind)


def _ended_pod(job: Manifest, facts: Facts) -> Manifest:
    terminated = {"exitCode": 0, "reason": "Completed", "message": facts.model_dump_json()}
    metadata = job["metadata"]
    return {
        "metadata": {
            "name": f"{metadata['name']}-0",
            "namespace": metadata["namespace"],
            "uid": "pod",
            "labels": metadata["labels"],
            "ownerReferences": [{"kind": "Job", "uid": metadata["uid"], "controller": True}],
        },
        "spec": {"nodeName": "node"},
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": terminated}}],
        },
    }
