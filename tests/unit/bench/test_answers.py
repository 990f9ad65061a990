"""What the benchmark's nodes answer is what the contract asks of a real trainer."""

from __future__ import annotations

from typing import Any

import pytest

from bench.answers import FACTS, progress_post, termination_message
from bench.jobs import fine_tune_job
from tunewright.api.hashing import spec_hash
from tunewright.api.spec import parse_spec
from tunewright.children.owner import Owner
from tunewright.children.workers import worker_job
from tunewright.core import names
from tunewright.core.references import references
from tunewright.core.settings import OperatorSettings
from tunewright.core.translate import trainer_config
from tunewright.planner.choose import choose
from tunewright_trainer import contract
from tunewright_trainer.contract import ANSWER, ExportResult, Facts, ProgressPost, TrainResult

FACTS_READ = Facts.model_validate_json(FACTS)


def pod(component: str, index: int = 0, world_size: int = 4) -> dict[str, Any]:
    return {
        "metadata": {
            "labels": {names.LABEL_COMPONENT: component, names.LABEL_JOB_NAME: "job"},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"containers": [{"env": [{"name": "PET_NNODES", "value": str(world_size)}]}]},
    }


@pytest.mark.parametrize(
    ("component", "kind"), [("prepare", Facts), ("train", TrainResult), ("export", ExportResult)]
)
def test_each_component_answers_with_its_document(component: str, kind: type) -> None:
    message = termination_message(pod(component))
    assert isinstance(ANSWER.validate_json(message), kind)
    assert len(message) < contract.TERMINATION_MESSAGE_LIMIT_BYTES


def test_facts_keep_to_their_limit() -> None:
    assert len(FACTS) <= contract.FACTS_LIMIT_BYTES


def test_only_rank_0_tells_what_was_measured() -> None:
    first, third = (ANSWER.validate_json(termination_message(pod("train", index))) for index in (0, 2))
    assert isinstance(first, TrainResult)
    assert isinstance(third, TrainResult)
    assert (first.rank, first.world_size, first.loss is None) == (0, 4, False)
    assert (third.rank, third.world_size, third.loss) == (2, 4, None)


def test_progress_posts_are_read_and_each_tells_something_new() -> None:
    posts = [ProgressPost.model_validate(progress_post(step)) for step in (1, 2)]
    ours = [post.trainer_status.tunewright for post in posts]
    assert ours[0] is not None
    assert ours[1] is not None
    assert (ours[0].step, ours[1].step) == (1, 2)
    assert ours[0].loss != ours[1].loss


@pytest.mark.parametrize("pods", [1, 4, 8, 256])
def test_jobs_of_any_size_are_valid_and_fit(pods: int) -> None:
    manifest = fine_tune_job("bench", "job", pods=pods)
    choice = choose(parse_spec(manifest["spec"]), FACTS_READ.model, FACTS_READ.data, 80 * 1024**3)
    assert choice.world_size == pods


def test_a_job_that_waits_names_its_secret() -> None:
    spec = parse_spec(fine_tune_job("bench", "job", secret="not-there-yet")["spec"])
    assert "secret/not-there-yet" in references(spec)


def test_world_size_stands_where_the_nodes_look_for_it() -> None:
    """The nodes read the worker pods that the operator's own builder makes."""
    manifest = fine_tune_job("bench", "job", pods=3)
    spec = parse_spec(manifest["spec"])
    manifest["metadata"]["uid"] = "u"
    owner = Owner.of(manifest)
    config = trainer_config(owner, spec, spec_hash(spec))
    job = worker_job(owner, spec, config, OperatorSettings("1", "image"), "image", 1)
    made = {**pod("train", 1), "spec": job["spec"]["template"]["spec"]}
    result = ANSWER.validate_json(termination_message(made))
    assert isinstance(result, TrainResult)
    assert (result.rank, result.world_size) == (1, 3)
