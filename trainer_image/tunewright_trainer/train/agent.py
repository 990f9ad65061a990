"""torchrun, with one thing added: it writes down how each of its ranks ended.

torchrun exits 1 whatever a rank returned, and says the rest in prose. Run as
``python -m tunewright_trainer.train.agent REPORT_FILE TORCHRUN_ARGUMENTS...``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from tunewright_trainer.errors import last_line
from tunewright_trainer.train.outcome import AgentReport, Exit


def main(arguments: list[str]) -> int:
    """Run torchrun with ``arguments[1:]``; 0 if all ranks ended well, else 1 (128 + n after signal n)."""
    report = Path(arguments[0])
    try:
        torchrun.run(torchrun.parse_args(arguments[1:]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        exits = [
            Exit(local_rank=failure.local_rank, exit_code=failure.exitcode, ended_at=float(failure.timestamp))
            for failure in error.failures.values()
        ]
        AgentReport(exits=exits).write(report)
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    except Exception as error:
        AgentReport(error=last_line(error)).write(report)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
