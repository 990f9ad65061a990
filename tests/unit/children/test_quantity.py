"""CPU quantities in every form that the API server takes."""

from __future__ import annotations

import pytest

from tests.builders import SETTINGS, make_spec
from tests.unit.children.goldens import OWNER
from tunewright.api.spec import parse_spec
from tunewright.children.quantity import whole_cpus
from tunewright.children.workers import worker_job
from tunewright.core.translate import trainer_config


@pytest.mark.parametrize(
    ("quantity", "cpus"),
    [
        ("16", 16),
        ("16000m", 16),
        ("7.5", 7),
        ("7.", 7),
        (".5", 0),
        ("500m", 0),
        ("7999m", 7),
        ("1e1", 10),
        ("160E-1", 16),
        ("1E", 10**18),
        ("2k", 2000),
        ("1Ki", 1024),
        ("0.5Ki", 512),
        ("1e999999999", 10**18),
        ("1e" + "9" * 5000, 10**18),
        ("9" * 30, 2**63 - 1),
        ("1e-999999999", 0),
    ],
)
def test_cpus_are_counted_in_every_form(quantity: str, cpus: int) -> None:
    assert whole_cpus(quantity) == cpus


@pytest.mark.parametrize("quantity", ["", "-1", "1x", "m", "1 ", "1e", "1mi"])
def test_what_is_no_quantity_says_so(quantity: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write one such as"):
        whole_cpus(quantity)


@pytest.mark.parametrize(("cpu", "threads"), [("16000m", "4"), ("7.5", "1"), ("8.5", "2"), ("500m", "1")])
def test_threads_are_shared_out_whatever_the_form(cpu: str, threads: str) -> None:
    spec = parse_spec(make_spec(compute={"nodes": 1, "processesPerNode": 4, "resources": {"cpu": cpu}}))
    plan = {"zeroStage": 2, "microBatch": 1, "gradientAccumulation": 1, "precision": "BF16"}
    plan["activationCheckpointing"] = False
    config = trainer_config(OWNER, spec, "v1:0", plan=plan, prepared_key="key")
    job = worker_job(OWNER, spec, config, SETTINGS, "image", 1)
    env = {e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["OMP_NUM_THREADS"] == threads
