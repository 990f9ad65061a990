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


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand; its options carry ``run``."""
    parser = subparsers.add_parser(
        "run",
        help="run the operator",
        description="Runs the operator until SIGTERM. In a pod it logs in as the pod's service account, "
        "elsewhere with a kubeconfig. TUNEWRIGHT_* variables configure it.",
    )
    parser.add_argument(
        "--kubeconfig", type=Path, help="kubeconfig file (default: $KUBECONFIG, or the pod's)"
    )
    parser.add_argument("--context", help="context of the kubeconfig (default: its current one)")
    parser.set_defaults(run=run)


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
    from tunewright.supervisor import Operator

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
    return 0
