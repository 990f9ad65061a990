"""Names fit where they are put, and never clash."""

from __future__ import annotations

import re

import pytest

from tunewright.core import names

LONGEST = "x" * names.MAX_JOB_NAME_LENGTH
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.mark.parametrize(
    "child",
    [
        names.prepare_job(LONGEST) + "-xxxxx",
        names.export_job(LONGEST) + "-xxxxx",
        names.worker_job(LONGEST, 999_999) + "-511",
        names.worker_job(LONGEST, 9999) + "-511-xxxxx",
        names.worker_service(LONGEST),
        names.train_config(LONGEST, 999_999),
    ],
)
def test_children_of_the_longest_name_are_dns_labels(child: str) -> None:
    assert len(child) <= 63
    assert DNS_LABEL.fullmatch(child)


def test_children_of_one_job_have_names_of_their_own() -> None:
    jobs = [names.prepare_job("j"), names.export_job("j"), *(names.worker_job("j", n) for n in range(1, 12))]
    configs = [names.prepare_config("j"), *(names.train_config("j", n) for n in range(1, 12))]
    assert len(set(jobs)) == len(jobs)
    assert len(set(configs)) == len(configs)


def test_label_values_fit_and_stay_apart() -> None:
    assert names.label_value("short") == "short"
    long = [names.label_value("y" * 80 + end) for end in "ab"]
    assert len(long[0]) <= 63
    assert long[0] != long[1]


def test_rendezvous_ports_are_unprivileged_and_move_with_the_attempt() -> None:
    ports = [names.rendezvous_port("uid", attempt) for attempt in range(1, 30)]
    assert all(20_000 <= port < 30_000 for port in ports)
    assert len(set(ports)) > 25
    assert ports[0] == names.rendezvous_port("uid", 1)


def test_the_audience_names_one_job() -> None:
    assert names.progress_audience("ns", "a").endswith("/namespaces/ns/trainjobs/a/status")


@pytest.mark.parametrize("name", ["tune-prepare", "tune-export", "tune-a1", "tune-a12"])
def test_names_of_a_job_s_batch_jobs(name: str) -> None:
    assert names.is_batch_job("tune", name)


@pytest.mark.parametrize(
    "name",
    ["", "tune", "tune-a0", "tune-a", "tune-a1x", "tune-a1-0", "tuner-a1", "a-tune-a1", "tune-workers"],
)
def test_other_names_are_of_none_of_its_batch_jobs(name: str) -> None:
    assert not names.is_batch_job("tune", name)
    assert not names.is_batch_job("t.ne", "tune-a1")
