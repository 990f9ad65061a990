"""Of all that the ranks of a pod say, the pod reports the cause: culprits before victims."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright_trainer.contract import ExitCode, Failure, Reason, TrainResult
from tunewright_trainer.errors import EXIT_CODES
from tunewright_trainer.train.outcome import AgentReport, Evidence, Exit, Outcome, judge


def ok(rank: int) -> Outcome:
    answer = TrainResult(rank=rank, world_size=2, step=6, total_steps=6, loss=1.0)
    return Outcome(rank=rank, local_rank=rank, pid=10 + rank, exit_code=0, ended_at=5.0, answer=answer)


def failed(rank: int, reason: Reason, at: float = 5.0) -> Outcome:
    answer = Failure(reason=reason, message=f"rank {rank}", rank=rank)
    code = EXIT_CODES[reason]
    return Outcome(rank=rank, local_rank=rank, pid=10 + rank, exit_code=code, ended_at=at, answer=answer)


def silent(rank: int) -> Outcome:
    return Outcome(rank=rank, local_rank=rank, pid=10 + rank)


def evidence(*outcomes: Outcome, **fields: Any) -> Evidence:
    exits = fields.pop("exits", [])
    defaults: dict[str, Any] = {
        "terminated": False,
        "agent_exit_code": 1,
        "out_of_memory_kills": 0,
        "agent": AgentReport(exits=exits, error=fields.pop("error", None)),
    }
    return Evidence(outcomes=outcomes, **{**defaults, **fields})


def reason_of(answer: TrainResult | Failure) -> Reason:
    assert isinstance(answer, Failure)
    return answer.reason


def test_all_well_gives_the_result_of_the_lowest_rank() -> None:
    verdict = judge(evidence(ok(1), ok(0), agent_exit_code=0))
    assert verdict.exit_code == ExitCode.OK
    assert verdict.answer.rank == 0


def test_a_pod_without_rank_0_answers_with_its_own_rank() -> None:
    verdict = judge(evidence(ok(1), agent_exit_code=0))
    assert (verdict.exit_code, verdict.answer.rank) == (ExitCode.OK, 1)


@pytest.mark.parametrize("victim", [Reason.RANK_LOST, Reason.STOPPED_FOR_PEER, Reason.PREEMPTED])
def test_a_culprit_is_told_even_if_a_victim_ended_first(victim: Reason) -> None:
    verdict = judge(evidence(failed(0, victim, at=1.0), failed(1, Reason.NAN_LOSS, at=2.0)))
    assert verdict.exit_code == ExitCode.NAN_LOSS
    assert verdict.answer.rank == 1


def test_of_two_culprits_the_earlier_counts() -> None:
    verdict = judge(
        evidence(failed(0, Reason.INTERNAL_ERROR, at=2.0), failed(1, Reason.OUT_OF_MEMORY, at=1.0))
    )
    assert verdict.exit_code == ExitCode.OUT_OF_MEMORY


def test_a_rank_killed_silently_comes_before_its_victim() -> None:
    killed = Exit(local_rank=1, exit_code=-9, ended_at=1.0)
    verdict = judge(evidence(failed(0, Reason.RANK_LOST), silent(1), exits=[killed]))
    assert verdict.exit_code == ExitCode.KILLED
    assert reason_of(verdict.answer) == Reason.RANK_FAILED
    assert verdict.answer.rank == 1
    assert isinstance(verdict.answer, Failure)
    assert "signal 9" in verdict.answer.message


def test_the_kernels_kill_for_memory_has_its_own_name() -> None:
    killed = Exit(local_rank=1, exit_code=-9, ended_at=1.0)
    verdict = judge(evidence(failed(0, Reason.RANK_LOST), silent(1), exits=[killed], out_of_memory_kills=1))
    assert verdict.exit_code == ExitCode.OUT_OF_MEMORY
    assert reason_of(verdict.answer) == Reason.OUT_OF_MEMORY


def test_a_rank_that_could_not_even_say_why_is_a_defect_not_a_code_of_its_own() -> None:
    verdict = judge(evidence(exits=[Exit(local_rank=0, exit_code=1, ended_at=1.0)]))
    assert verdict.exit_code == ExitCode.INTERNAL_ERROR
    assert reason_of(verdict.answer) == Reason.RANK_FAILED


def test_torchruns_own_sigterm_to_the_others_is_not_the_cause() -> None:
    exits = [
        Exit(local_rank=0, exit_code=-15, ended_at=1.0),
        Exit(local_rank=1, exit_code=-11, ended_at=2.0),
    ]
    verdict = judge(evidence(silent(0), silent(1), exits=exits))
    assert verdict.exit_code == 128 + 11
    assert verdict.answer.rank == 1


@pytest.mark.parametrize(
    ("end", "given_up"),
    [
        (Exit(local_rank=1, exit_code=-9, ended_at=6.0), frozenset({1})),
        (Exit(local_rank=1, exit_code=-9, ended_at=40.0), frozenset()),
        (Exit(local_rank=1, exit_code=-15, ended_at=5.0), frozenset()),
    ],
    ids=["killed-by-the-entrypoint", "killed-by-torchrun", "stopped-by-torchrun"],
)
def test_a_rank_that_was_ended_after_another_failed_is_not_the_cause(
    end: Exit, given_up: frozenset[int]
) -> None:
    verdict = judge(evidence(failed(0, Reason.RANK_LOST), silent(1), exits=[end], given_up=given_up))
    assert verdict.exit_code == ExitCode.RANK_LOST
    assert verdict.answer.rank == 0


def test_sigterm_of_the_pod_never_exits_0() -> None:
    assert judge(evidence(ok(0), ok(1), terminated=True, agent_exit_code=0)).exit_code == ExitCode.TERMINATED
    verdict = judge(evidence(terminated=True))
    assert verdict.exit_code == ExitCode.TERMINATED
    assert reason_of(verdict.answer) == Reason.PREEMPTED


def test_sigterm_of_the_pod_tells_what_was_saved() -> None:
    saved = failed(1, Reason.PREEMPTED)
    verdict = judge(evidence(failed(0, Reason.PREEMPTED), saved, terminated=True))
    assert reason_of(verdict.answer) == Reason.PREEMPTED


def test_a_pod_whose_peer_was_stopped_says_so() -> None:
    verdict = judge(evidence(failed(0, Reason.STOPPED_FOR_PEER), failed(1, Reason.STOPPED_FOR_PEER)))
    assert verdict.exit_code == ExitCode.STOPPED_FOR_PEER


def test_one_rank_alone_got_sigterm() -> None:
    verdict = judge(evidence(failed(0, Reason.STOPPED_FOR_PEER), failed(1, Reason.PREEMPTED)))
    assert verdict.exit_code == ExitCode.TERMINATED
    assert verdict.answer.rank == 1


def test_a_gang_that_never_met_is_lost_with_torchruns_error() -> None:
    verdict = judge(evidence(error="RendezvousTimeoutError"))
    assert verdict.exit_code == ExitCode.RANK_LOST
    assert isinstance(verdict.answer, Failure)
    assert verdict.answer.error == "RendezvousTimeoutError"


def test_ranks_that_say_ok_do_not_hide_one_that_died() -> None:
    killed = Exit(local_rank=1, exit_code=-6, ended_at=1.0)
    assert judge(evidence(ok(0), silent(1), exits=[killed])).exit_code == 128 + 6
