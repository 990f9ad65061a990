"""``python -m tunewright``: the command line. Subcommands live in tunewright.cli, one module each."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from tunewright import __version__
from tunewright.cli import crd, render, run, validate

COMMANDS = (run, crd, validate, render)
EPILOG = """\
examples:
  tunewright crd | kubectl apply --server-side -f -   make FineTuneJobs known to a cluster
  tunewright validate job.yaml                        check a job before it is applied
  tunewright render job.yaml                          see what the operator would create for it
  tunewright run --kubeconfig ~/.kube/config          run the operator outside the cluster

`tunewright COMMAND --help` tells more about each command. On a cluster, install the Helm chart.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="tunewright",
        description="Fine-tunes language models on a Kubernetes cluster's own GPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tunewright {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
