"""The tables that the cluster tests cover, as data, and the mark by which a test says which row it covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

BAD_INPUT = {
    "misspelt field": "refused by kubectl apply in the server's own words, which name the field",
    "wrong type": "refused by kubectl apply in the server's own words, which name the field",
    "epochs and maxSteps both": "refused; the message says what to write instead",
    "lora block under Full": "refused; the message says what to write instead",
    "any other rule": "refused; the message says what to write instead",
    "spec changed after creation": "refused by the API server, except lifecycle",
    "secret not there yet": "a condition says what is missing; the job goes on by itself when it appears",
    "claim not there yet": "a condition says what is missing; the job goes on by itself when it appears",
    "model folder missing": "Failed from prepare, no worker pod; the message says which names do exist",
    "tokenizer without chat template": "Failed from prepare, no worker pod; the message says what to do",
    "targetModules that match nothing": "Failed from prepare, no worker pod; the message names the others",
    "broken JSON on line 71": "DataInvalid, file, line and reason; no worker pod",
    "empty file": "DataInvalid, file and reason; no worker pod",
    "role order wrong": "DataInvalid, file, line and reason; no worker pod",
    "assistant turn empty": "DataInvalid, file, line and reason; no worker pod",
    "all rows truncated": "DataInvalid, file, line and reason of the first ten; no worker pod",
    "rank killed": "named reason, restart from the checkpoint",
    "rank hangs": "named reason, restart from the checkpoint",
    "out of memory": "named reason, Failed with advice",
    "NaN loss": "named reason, Failed with advice",
    "disk full": "named reason, Failed with advice",
    "pod deleted by hand": "named reason, restart from the checkpoint",
    "node gone": "named reason, restart from the checkpoint",
    "the operator's code trips over it": "that job shows an error condition, all others go on",
}
"""Input or accident to what the user sees."""

_CASES = "tests/unit/core/cases"
ELSEWHERE = {
    # Network, or a defect of ours: nothing that a cluster without a network can bring about honestly.
    "AuthenticationFailed": "tests/trainer/test_storage_hub.py::AUTHENTICATION_FAILED",
    "InternalError": f"{_CASES}/ends.py::INTERNAL_ERROR",
    "ConfigInvalid": f"{_CASES}/ends.py::ConfigInvalid",
    # What is left when PrepareRetrying and UploadRetrying have tried in vain, minutes later.
    "StorageFailed": f"{_CASES}/ends.py::StorageFailed",
    # Only a CRD of another release lets such a spec in.
    "SpecInvalid": f"{_CASES}/before.py::SpecInvalid",
    "SpecChanged": f"{_CASES}/changed.py::SpecChanged",
    # Moments between two writes of somebody else.
    "FactsLost": f"{_CASES}/before.py::FactsLost",
    "ResultLost": f"{_CASES}/after.py::ResultLost",
    "PodFailed": f"{_CASES}/ends.py::PodFailed",
    "RankLost": f"{_CASES}/ends.py::RankLost",
    "StoppedForPeer": f"{_CASES}/ends.py::StoppedForPeer",
    "WorkersStopping": f"{_CASES}/between.py::WorkersStopping",
    "ContainerConfigInvalid": f"{_CASES}/attempt.py::ContainerConfigInvalid",
}
"""Reasons that have no cluster test, and where they are tested: file and a word that stands in it."""


def covers(*rows: str) -> Callable[[Test], Test]:
    """Says that a test covers ``rows``: keys of BAD_INPUT, phases or reasons. Read by test_rows.py."""

    def mark(test: Test) -> Test:
        return test

    del rows  # test_rows.py reads them from the source
    return mark
