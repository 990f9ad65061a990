"""Collects what is wrong with the data, so that a person sees the first ten bad rows at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from tunewright_trainer.contract import Reason
from tunewright_trainer.data.rows import BadRow
from tunewright_trainer.errors import TrainerError

ROWS_SHOWN = 10


class Lint:
    """Bad rows, warnings, and counts that become warnings."""

    def __init__(self) -> None:
        self.bad_rows: list[BadRow] = []
        self.bad_count = 0
        self.warnings: list[str] = []

    def add(self, row: BadRow) -> None:
        self.bad_count += 1
        if len(self.bad_rows) < ROWS_SHOWN:
            self.bad_rows.append(row)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def warn_if(self, count: int, text: Callable[[str], str]) -> None:
        """Warn if ``count`` is above zero; ``text`` gets "1 row" or "7 rows"."""
        if count:
            self.warnings.append(text(f"{count:,} row" + ("s" if count > 1 else "")))

    def raise_if_bad(self, rows_read: int) -> None:
        """Raises DataInvalid with file, line and reason of the first ten bad rows, if there are any."""
        if not self.bad_count:
            return
        raise data_invalid(self.bad_rows, self.bad_count, rows_read)


CORRECT_ROWS = "Correct these rows or take them out, then create the job again."


def data_invalid(shown: list[BadRow], count: int, rows_read: int, advice: str = CORRECT_ROWS) -> TrainerError:
    """DataInvalid for ``count`` bad rows of which ``shown`` are told one by one."""
    places = []
    for uri, rows in groupby(shown, key=lambda row: row.file.uri):
        told = "; ".join(_told(row) for row in rows)
        places.append(f"{uri}: {told}")
    first = f" (the first {ROWS_SHOWN} are told)" if count > ROWS_SHOWN else ""
    whole = f"{count:,} of {rows_read:,} rows can't be used{first}" if rows_read else "No row can be used"
    return TrainerError(
        Reason.DATA_INVALID,
        f"{whole}: {'; '.join(places)}.",
        advice,
    )


def _told(row: BadRow) -> str:
    return f"{row.unit} {row.number}: {row.reason}" if row.number else row.reason
