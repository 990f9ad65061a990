"""``tunewright validate``: tells what the API server would refuse, before there is a cluster."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tunewright.api.problems import manifest_problems
from tunewright.cli.manifests import ManifestError, read_manifests
from tunewright.core import names


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand; its options carry ``run``."""
    parser = subparsers.add_parser(
        "validate",
        help="check FineTuneJob manifests offline",
        description="Checks FineTuneJob manifests as the API server would, without a cluster. For a field"
        " that does not exist it names the nearest one that does. Exits 1 when something is wrong.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML or JSON file, or - for standard input")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints one line per job that is valid and one per problem; returns the exit status."""
    valid = [_validate_file(path) for path in options.files]
    return 0 if all(valid) else 1


def _validate_file(path: str) -> bool:
    try:
        manifests = read_manifests(path)
    except ManifestError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return False
    jobs = [manifest for manifest in manifests if manifest.get("kind") == names.KIND]
    if not jobs:
        print(f"{path}: holds no {names.KIND}: write kind: {names.KIND}", file=sys.stderr)
        return False
    valid = [_validate_job(path, job) for job in jobs]
    return all(valid)


def _validate_job(path: str, job: dict[str, Any]) -> bool:
    metadata = job.get("metadata")
    name = metadata.get("name", "-") if isinstance(metadata, dict) else "-"
    problems = manifest_problems(job)
    for problem in problems:
        print(f"{path}: {name}: {problem}", file=sys.stderr)
    if not problems:
        print(f"{path}: {name}: valid")
    return not problems
