"""Counting from the audit log: one line per request, each in the right drawer, nobody else's among them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.audit import AuditLog, Request, count_by_kind, job_writes, kind_of, smallest_gaps_seconds

OPERATOR = "system:serviceaccount:tunewright-system:tunewright"
START = datetime(2026, 1, 1, tzinfo=UTC)


def line(
    verb: str, resource: str, *, user: str = OPERATOR, stage: str = "ResponseComplete", **ref: Any
) -> str:
    event = {
        "stage": stage,
        "verb": verb,
        "user": {"username": user},
        "objectRef": {"resource": resource, **ref},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
    }
    return json.dumps(event) + "\n"


def request(kind: str, name: str = "job", seconds: float = 0.0, namespace: str = "a") -> Request:
    at = START + timedelta(seconds=seconds)
    return Request(kind, "patch", "finetunejobs", namespace, name, 200, at)


@pytest.mark.parametrize(
    ("verb", "resource", "subresource", "kind"),
    [
        ("patch", "finetunejobs", "status", "status"),
        ("patch", "finetunejobs", "", "finalizer"),
        ("delete", "finetunejobs", "", "delete"),
        ("create", "jobs", "", "create"),
        ("create", "configmaps", "", "create"),
        ("deletecollection", "pods", "", "delete"),
        ("create", "events", "", "event"),
        ("patch", "events", "", "event"),
        ("update", "leases", "", "lease"),
        ("get", "leases", "", "read"),
        ("create", "tokenreviews", "", "token review"),
        ("update", "secrets", "", "certificate"),
        ("watch", "pods", "", "read"),
        ("update", "jobs", "", "other"),
    ],
)
def test_each_request_has_its_kind(verb: str, resource: str, subresource: str, kind: str) -> None:
    assert kind_of(verb, resource, subresource) == kind


def test_a_watch_is_counted_when_it_starts_and_everything_else_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text(
        line("watch", "pods", stage="ResponseStarted")
        + line("watch", "pods", stage="ResponseComplete")
        + line("watch", "jobs", stage="ResponseStarted")  # still open
        + line("patch", "finetunejobs", subresource="status", namespace="a", name="job")
    )
    kinds = [(each.verb, each.kind) for each in AuditLog(path, OPERATOR).requests()]
    assert kinds == [("watch", "read"), ("watch", "read"), ("patch", "status")]


def test_other_users_are_left_out_even_when_they_name_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text(line("create", "jobs", user="someone-else", name=OPERATOR) + line("create", "jobs"))
    assert len(AuditLog(path, OPERATOR).requests()) == 1


def test_positions_bound_what_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, OPERATOR)
    path.write_text(line("create", "jobs"))
    start = log.position()
    with path.open("a") as file:
        file.write(line("create", "services"))
        file.flush()
        end = log.position()
        file.write(line("create", "configmaps"))
    assert [each.resource for each in log.requests(start, end)] == ["services"]


def test_writes_of_a_job_leave_out_reads_events_and_other_namespaces() -> None:
    requests = [
        request(kind) for kind in ("read", "event", "lease", "status", "finalizer", "create", "other")
    ]
    requests.append(request("status", namespace="elsewhere"))
    assert count_by_kind(job_writes(requests, "a")) == {"status": 1, "finalizer": 1, "create": 1, "other": 1}
    assert len(job_writes(requests)) == 5


def test_shortest_gap_is_per_object_and_needs_two_writes() -> None:
    requests = [
        request("status", "one", 31.0),
        request("status", "one", 0.0),
        request("status", "one", 90.0),
        request("status", "two", 1.0),
    ]
    assert smallest_gaps_seconds(requests) == {("a", "one"): 31.0}
