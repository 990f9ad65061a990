"""`make bench-operator`: what the operator costs and how fast it is, on a real API server.

Starts etcd, kube-apiserver, kube-controller-manager and kube-scheduler (these two with --kube-api-qps=1000,
so that their own limits are not what is measured), nodes that answer pod status without running anything, and
the operator as a process of its own under the chart's ServiceAccount. Loads it, and tells CPU, writes by the
audit log, latencies by the generator's own watches, and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.cluster import BenchCluster
from bench.figures import Figure
from bench.machine import CpuUse, machine
from bench.scale import FULL, QUICK, Scale
from bench.scenarios import SCENARIOS
from bench.scenarios.context import Bench
from hack.devcluster.state import ClusterError

_started = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.quick and options.page:
        parser.error("--page is for a full run: a quick one's figures mean little")
    scale = QUICK if options.quick else FULL
    chosen = [name for name in SCENARIOS if not options.scenario or name in options.scenario]
    host = machine()
    with tempfile.TemporaryDirectory(prefix="tunewright-bench-") as scratch:
        folder = Path(options.dir or scratch).resolve()
        figures: list[Figure] = []
        use: dict[str, float] = {}
        status = 0
        try:
            asyncio.run(measure(folder, scale, chosen, figures, use))
        except (ClusterError, TimeoutError, RuntimeError, ExceptionGroup) as failure:
            status = 1
            for error in _leaves(failure):
                print(f"bench.operator: {error}", file=sys.stderr)
            if options.dir:
                print(f"Logs are in {folder}", file=sys.stderr)
        except asyncio.CancelledError:
            status = 128 + signal.SIGTERM
    if not figures:
        return status
    # What was measured before a scenario failed is worth keeping too.
    found = report.document(figures, _command(options), host | use, time.monotonic() - _started)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.page and status == 0:
        text = report.put_on_page(options.page.read_text(), report.markdown(found))
        options.page.write_text(text)
    print()
    print(report.markdown(found, targets=not options.quick), end="")
    return status


async def measure(
    folder: Path, scale: Scale, scenarios: Sequence[str], figures: list[Figure], use: dict[str, float]
) -> None:
    """Run the named scenarios in ``folder``, which must be empty.

    Each adds its ``figures`` when it is done, and to ``use`` how much of the machine others took so far.
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say("Starting the control plane and the nodes (about 15 s)")
    async with BenchCluster(folder, scale.nodes, scale.settings) as cluster:
        bench = Bench(cluster, scale, say, cluster.start_operator(), figures)
        seconds = await bench.operator.ready()
        say(f"The operator is ready ({seconds:.1f} s)")
        before = CpuUse.now()
        for name in scenarios:
            say(f"{report.SCENARIO_TITLES[name]} ({name})")
            await SCENARIOS[name](bench)
            use |= CpuUse.now().since(before)
        say("Stopping")


def say(line: str) -> None:
    """Print ``line`` with the time since the start."""
    print(f"[{time.monotonic() - _started:6.1f} s] {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.operator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help="measure this only; may be given several times (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the tables on this page (docs/benchmarks.md)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small run of less than 2 minutes; its figures mean little"
    )
    parser.add_argument(
        "--dir",
        type=Path,
        help="empty folder for the cluster's state and logs, kept (default: a temporary one)",
    )
    return parser


def _command(options: argparse.Namespace) -> str:
    """The command as someone else would type it: no paths of this machine."""
    parts = ["python -m bench.operator", *(["--quick"] if options.quick else [])]
    return " ".join([*parts, *(f"--scenario {name}" for name in options.scenario or [])])


def _leaves(error: Exception) -> list[Exception]:
    """The errors that a group holds, at any depth; else the error itself."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
