"""``tunewright crd``: prints the CustomResourceDefinition of this version."""

from __future__ import annotations

import argparse
import sys

from tunewright.api.crd import crd_yaml


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand; its options carry ``run``."""
    parser = subparsers.add_parser(
        "crd",
        help="print the CustomResourceDefinition of FineTuneJob",
        description="Prints the CustomResourceDefinition of FineTuneJob. Install it with"
        " `tunewright crd | kubectl apply --server-side -f -`.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the CRD; returns the exit status."""
    del options
    sys.stdout.write(crd_yaml())
    return 0
