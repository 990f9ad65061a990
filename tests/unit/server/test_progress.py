"""Who may report progress, what is taken in, and what a stranger is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving
from tunewright.core import names
from tunewright.server.progress import LARGEST_BODY_BYTES, POD_UID, ProgressServer, TokenChecker
from tunewright_trainer.contract import ProgressPost

AUDIENCE = names.progress_audience("ns", "tune")
PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ns/trainjobs/tune/status"
POST = {"trainerStatus": {"progressPercentage": 40, "tunewright": {"step": 4, "loss": 2.5}}}

INTEGERS = (
    "step",
    "total_steps",
    "last_checkpoint_step",
    "resumed_from_step",
    "peak_memory_bytes",
    "attempt",
)


def review(**status: Any) -> dict[str, Any]:
    """What TokenReview answers for a good token, but for what is given."""
    user = {"username": "system:serviceaccount:ns:default", "extra": {POD_UID: ["pod-1"]}}
    return {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user} | status}


class Desk:
    """A progress server over a TokenReview that answers what the test says."""

    def __init__(self, api: ApiServer, url: str) -> None:
        self.api = api
        self.url = url
        self.current = {("ns", "tune", "pod-1")}
        self.leads = True
        self.taken: list[ProgressPost] = []
        self.clock = 0.0
        self.codes: list[str] = []

    def reviews(self, answer: dict[str, Any]) -> None:
        """What TokenReview answers from now on."""
        self.api.faults[:] = [Fault("POST", "tokenreviews", status=201, body=answer, times=10**6)]

    async def post(self, body: Any = None, token: str | None = "token", path: str = PATH) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        data = {"data": body} if isinstance(body, bytes) else {"json": POST if body is None else body}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, headers=headers, **data) as answer,
        ):
            return answer.status, (await answer.json())["message"]


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with serving() as api, client_of(api) as client:
        server = ProgressServer(
            TokenChecker(client, lambda: desk.clock),
            lambda *who: who in desk.current,
            lambda namespace, name, pod_uid, post: desk.taken.append(post),
            accepts=lambda: desk.leads,
            count=lambda code: desk.codes.append(code),
        )
        runner = web.AppRunner(server.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        desk = Desk(api, f"http://127.0.0.1:{runner.addresses[0][1]}")
        desk.reviews(review())
        try:
            yield desk
        finally:
            await runner.cleanup()


def at_desk(scenario: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_desk() as desk:
            await scenario(desk)

    asyncio.run(main())


def test_a_current_worker_is_heard() -> None:
    async def scenario(desk: Desk) -> None:
        assert await desk.post() == (200, "accepted")
        assert desk.taken[0].trainer_status.progress_percentage == 40
        assert desk.taken[0].trainer_status.tunewright is not None
        assert desk.taken[0].trainer_status.tunewright.loss == 2.5
        assert desk.api.bodies[0]["spec"] == {"token": "token", "audiences": [AUDIENCE]}
        assert desk.codes == ["200"]

    at_desk(scenario)


def test_a_stock_trainer_is_understood() -> None:
    async def scenario(desk: Desk) -> None:
        metrics = [
            {"name": "current_step", "value": "12"},
            {"name": "loss", "value": "1.25"},
            {"name": "eval_loss", "value": "not a number"},
            {"name": "custom", "value": "7"},
        ]
        assert (await desk.post({"trainerStatus": {"metrics": metrics, "someday": 1}}))[0] == 200
        ours = desk.taken[0].trainer_status.tunewright
        assert ours is not None
        assert ours.model_dump(exclude_none=True) == {"step": 12, "loss": 1.25}

    at_desk(scenario)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(review(authenticated=False), 401, id="not authenticated"),
        pytest.param(review(audiences=[]), 401, id="a server that ignores audiences"),
        pytest.param(review(audiences=["other"]), 401, id="another audience"),
        pytest.param(review(user={"username": "alice", "extra": {POD_UID: ["pod-1"]}}), 401, id="a person"),
        pytest.param(
            review(user={"username": "system:serviceaccount:ns:default"}), 401, id="a token without a pod"
        ),
        pytest.param(
            review(user={"username": "system:serviceaccount:other:default", "extra": {POD_UID: ["pod-1"]}}),
            403,
            id="another namespace",
        ),
        pytest.param(
            review(user={"username": "system:serviceaccount:ns:default", "extra": {POD_UID: ["gone"]}}),
            403,
            id="a pod of an earlier attempt",
        ),
    ],
)
def test_strangers_are_not_heard(answer: dict[str, Any], code: int) -> None:
    async def scenario(desk: Desk) -> None:
        desk.reviews(answer)
        assert (await desk.post())[0] == code
        assert not desk.taken
        assert desk.codes == [str(code)]

    at_desk(scenario)


@pytest.mark.parametrize("token", [None, "", " "])
def test_without_a_token_nobody_is_asked(token: str | None) -> None:
    async def scenario(desk: Desk) -> None:
        assert (await desk.post(token=token))[0] == 401
        assert not desk.api.requests

    at_desk(scenario)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        pytest.param(b"x" * (LARGEST_BODY_BYTES + 1), 413, "larger than", id="too large"),
        pytest.param(b"not json", 422, "Invalid JSON", id="not JSON"),
        pytest.param({}, 422, "trainerStatus: Field required", id="nothing in it"),
        pytest.param(
            {"trainerStatus": {"progressPercentage": 101}}, 422, "progressPercentage", id="more than all"
        ),
        pytest.param(
            {"trainerStatus": {"metrics": [{"name": "x", "value": "y"}] * 257}}, 422, "metrics", id="too many"
        ),
        pytest.param(
            {"trainerStatus": {"estimatedRemainingSeconds": 315_360_001}},
            422,
            "Remaining",
            id="after ten years",
        ),
        *(
            pytest.param(
                {"trainerStatus": {"tunewright": {name: figure}}}, 422, name, id=f"{name} {figure:.0e}"
            )
            for name in INTEGERS
            for figure in (-1, 2**53 + 1, 10**300)
        ),
        *(
            pytest.param(
                {"trainerStatus": {"metrics": [{"name": "current_step", "value": value}]}},
                422,
                "step",
                id=f"a stock trainer's step {value}",
            )
            for value in ("-1", "1e300")
        ),
    ],
)
def test_a_bad_body_is_refused_in_words(body: Any, code: int, words: str) -> None:
    async def scenario(desk: Desk) -> None:
        status, message = await desk.post(body)
        assert status == code
        assert words in message
        assert not desk.taken

    at_desk(scenario)


def test_the_largest_figures_are_heard() -> None:
    async def scenario(desk: Desk) -> None:
        ours = dict.fromkeys(INTEGERS, 2**53)
        body = {"trainerStatus": {"estimatedRemainingSeconds": 315_360_000, "tunewright": ours}}
        assert (await desk.post(body))[0] == 200

    at_desk(scenario)


def test_a_token_is_reviewed_once_a_minute_per_audience() -> None:
    async def scenario(desk: Desk) -> None:
        desk.current.add(("ns", "other", "pod-1"))
        for _ in range(3):
            await desk.post()
        assert desk.api.count("POST") == 1
        assert (await desk.post(path=PATH.replace("tune", "other")))[0] == 401
        assert desk.api.count("POST") == 2, "an answer for one job says nothing about another"
        desk.clock = 61
        await desk.post()
        assert desk.api.count("POST") == 3

    at_desk(scenario)


def test_a_refused_token_is_remembered_for_a_while_only() -> None:
    async def scenario(desk: Desk) -> None:
        desk.reviews(review(authenticated=False))
        assert (await desk.post())[0] == 401
        desk.reviews(review())
        assert (await desk.post())[0] == 401
        desk.clock = 11
        assert (await desk.post())[0] == 200

    at_desk(scenario)


def test_a_pod_that_ended_is_not_heard_though_its_token_is_remembered() -> None:
    async def scenario(desk: Desk) -> None:
        assert (await desk.post())[0] == 200
        desk.current.clear()
        assert (await desk.post())[0] == 403

    at_desk(scenario)


def test_when_the_api_server_is_away_the_trainer_is_asked_to_post_again() -> None:
    async def scenario(desk: Desk) -> None:
        desk.api.faults[:] = [Fault("POST", status=500, times=99)]
        assert (await desk.post())[0] == 503
        desk.reviews(review())
        assert (await desk.post())[0] == 200, "a failure to ask is not remembered"

    at_desk(scenario)


def test_a_standby_takes_nothing_in() -> None:
    async def scenario(desk: Desk) -> None:
        desk.leads = False
        assert (await desk.post())[0] == 503
        assert not desk.taken

    at_desk(scenario)
