"""All rows of test_plan.py."""

from __future__ import annotations

from tests.unit.core.cases.after import AFTER
from tests.unit.core.cases.attempt import ATTEMPT
from tests.unit.core.cases.before import BEFORE
from tests.unit.core.cases.between import BETWEEN
from tests.unit.core.cases.changed import CHANGED
from tests.unit.core.cases.ends import ENDS
from tests.unit.core.cases.stops import DELETES, SUSPENDS

CASES = [*BEFORE, *ATTEMPT, *ENDS, *BETWEEN, *CHANGED, *AFTER, *SUSPENDS, *DELETES]
