"""``tunewright run``: the operator itself. Configured by environment, as a Deployment sets it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from tunewright.settings import Settings, SettingsError, load_settings

log = logging.getLogger(__name__)

CONFIG_EXIT = 64
LOST_EXIT = 1

VARIABLES = {
    "TUNEWRIGHT_NAMESPACE": "where the Lease and the certificate's Secret live (default: the login's)",
    "TUNEWRIGHT_WATCH_NAMESPACE": "only FineTuneJobs of this namespace (default: of all)",
    "TUNEWRIGHT_HTTP_BIND": "host:port of metrics and probes (127.0.0.1:8080)",
    "TUNEWRIGHT_PROGRESS_BIND": "host:port where trainers report (default: nowhere)",
    "TUNEWRIGHT_PROGRESS_URL": "https://host:port by which training pods reach it",
    "TUNEWRIGHT_PROGRESS_SECRET": "Secret with its certificate (tunewright-progress-tls)",
    "TUNEWRIGHT_PROGRESS_STATUS_SECONDS": "a job's status tells its progress this often (30)",
    "TUNEWRIGHT_LEADER_ELECT": "false only where there is never a second replica (true)",
    "TUNEWRIGHT_LEASE_NAME": "the Lease by which replicas choose a leader (tunewright)",
    "TUNEWRIGHT_TRAINER_IMAGE": "image of training pods",
    "TUNEWRIGHT_IMAGE_PULL_POLICY": "its pull policy (IfNotPresent)",
    "TUNEWRIGHT_WORKERS": "jobs worked on at the same time (8)",
    "TUNEWRIGHT_MAX_IN_FLIGHT": "requests to the API server at the same time (32)",
    "TUNEWRIGHT_CHECK_SECRETS": "look whether secrets exist before pods are made (true)",
    "TUNEWRIGHT_STATUS_SECONDS": "a status that only changes its wording is written this often (30)",
    "TUNEWRIGHT_NODE_LOST_SECONDS": "a node may be NotReady for so long (60)",
    "TUNEWRIGHT_REFERENCE_POLL_SECONDS": "look for a missing secret or claim this often (10)",
    "TUNEWRIGHT_RESTART_BACKOFF_SECONDS": "pause before the first restart (10)",
    "TUNEWRIGHT_TERMINATION_GRACE_SECONDS": "time to save a checkpoint when a pod is stopped (300)",
    "TUNEWRIGHT_LOG_FORMAT": "text or json (text)",
    "TUNEWRIGHT_LOG_LEVEL": "debug, info, warning or error (info)",
    "TUNEWRIGHT_SERVICE_ACCOUNT_DIR": "folder of the pod's token, where that is not the usual one",
    "POD_NAME": "name of this replica (the host's)",
    "POD_IP": "address by which the other replicas reach this one",
}
"""What configures the operator, for ``--help``; tunewright.settings reads it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand; its options carry ``run``."""
    parser = subparsers.add_parser(
        "run",
        help="run the operator",
        description="Runs the operator until SIGTERM. In a pod it logs in as the pod's service account,\n"
        "elsewhere with a kubeconfig.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="kubeconfig (default: in a pod its service account, else $KUBECONFIG or ~/.kube/config)",
    )
    parser.add_argument(
        "--context", metavar="NAME", help="context of the kubeconfig (default: its current one)"
    )
    parser.set_defaults(run=run)


def _epilog() -> str:
    width = max(map(len, VARIABLES))
    lines = [f"  {name:<{width}}  {meaning}" for name, meaning in VARIABLES.items()]
    exits = f"exit status: 0 after SIGTERM, {CONFIG_EXIT} when a setting or the login can't be used, else 1"
    return "\n".join(
        ["environment (defaults in brackets; an empty variable counts as unset):", *lines, "", exits]
    )


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status."""
    # Imported late: the offline commands start in a tenth of the time without kopf and aiohttp.
    from tunewright.cluster.credentials import CredentialsError, load_credentials
    from tunewright.logs import configure_logging

    try:
        credentials = load_credentials(os.environ, options.kubeconfig, options.context)
        settings = load_settings(os.environ, credentials.namespace or "default")
    except (CredentialsError, SettingsError) as error:
        print(f"tunewright run: {error}", file=sys.stderr)
        return CONFIG_EXIT
    configure_logging(settings.log_format, settings.log_level)
    return asyncio.run(_serve(credentials, settings))


async def _serve(credentials: object, settings: Settings) -> int:
    from tunewright.cluster.credentials import Credentials
    from tunewright.cluster.lease import LeadershipLost
    from tunewright.supervisor import CannotListen, Operator

    assert isinstance(credentials, Credentials)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await Operator(credentials, settings).run(stop)
    except LeadershipLost as error:
        # At once: nothing of this process may run on beside the new leader.
        log.error("leadership is lost, ending: %s", error)
        logging.shutdown()
        os._exit(LOST_EXIT)
    except CannotListen as error:
        log.error("%s", error)
        return CONFIG_EXIT
    return 0
