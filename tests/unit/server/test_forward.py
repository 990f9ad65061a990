"""A post that reaches a standby gets to the leader: over TLS to one of us, once, and within bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving
from tests.unit.server.test_progress import AUDIENCE, PATH, POST, review
from tunewright.server import forward
from tunewright.server.certificates import Bundle, CertificateKeeper, renewed
from tunewright.server.forward import FORWARDED, LARGEST_ANSWER_BYTES, Forwarder
from tunewright.server.progress import LARGEST_BODY_BYTES, ProgressServer, TokenChecker
from tunewright_trainer.contract import ProgressPost

SERVICE = "progress.ns.svc"
"""The name in the shared certificate; replicas listen on loopback addresses, which it does not have."""


class Replica:
    """A progress server over TLS with the stored certificate, and the forwarder that it hands on with."""

    def __init__(self) -> None:
        self.leads = False
        self.leader = ""
        self.address = ""
        self.taken: list[ProgressPost] = []
        self.codes: list[str] = []
        self.heard: list[tuple[str, dict[str, str]]] = []


class Pair:
    """A leader and a standby."""

    def __init__(self, api: ApiServer, leader: Replica, standby: Replica, ca_pem: str) -> None:
        self.api, self.leader, self.standby, self.ca_pem = api, leader, standby, ca_pem

    async def post(self, to: Replica, body: Any = POST, **headers: str) -> tuple[int, str]:
        """Code and message of what ``to`` answers to a trainer."""
        headers = {"Authorization": "Bearer token"} | headers
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        trusted = ssl.create_default_context(cadata=self.ca_pem)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://{to.address}{PATH}", headers=headers, ssl=trusted, server_hostname=SERVICE, **data
            ) as answer,
        ):
            return answer.status, (await answer.json())["message"]


@asynccontextmanager
async def listening(application: web.Application, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """host:port of ``application`` on a free port."""
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def replica(api: ApiServer) -> AsyncIterator[tuple[Replica, CertificateKeeper]]:
    async with client_of(api) as client:
        own = Replica()
        keeper = CertificateKeeper(client, "ns", "tls", [SERVICE])
        await keeper.refresh()
        forwarder = Forwarder(lambda: own.leader, lambda: keeper.ca_pem, SERVICE)
        server = ProgressServer(
            TokenChecker(client),
            lambda *who: who == ("ns", "tune", "pod-1"),
            lambda namespace, name, pod_uid, post: own.taken.append(post),
            accepts=lambda: own.leads,
            forwarder=forwarder,
            count=own.codes.append,
        )
        application = server.application()

        @web.middleware
        async def hear(request: web.Request, handler: Any) -> web.StreamResponse:
            own.heard.append((request.path, dict(request.headers)))
            response: web.StreamResponse = await handler(request)
            return response

        application.middlewares.append(hear)
        async with listening(application, keeper.ssl_context) as own.address:
            try:
                yield own, keeper
            finally:
                await forwarder.close()


def with_pair(scenario: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(serving())
            leader, keeper = await stack.enter_async_context(replica(api))
            standby, _ = await stack.enter_async_context(replica(api))
            api.faults.append(Fault("POST", "tokenreviews", status=201, body=review(), times=10**6))
            leader.leads, leader.leader, standby.leader = True, leader.address, leader.address
            await scenario(Pair(api, leader, standby, keeper.ca_pem))

    asyncio.run(main())


def test_a_post_to_a_standby_reaches_the_leader_as_it_was_sent() -> None:
    async def scenario(p: Pair) -> None:
        assert await p.post(p.standby) == (200, "accepted")
        assert [post.trainer_status.progress_percentage for post in p.leader.taken] == [40]
        assert not p.standby.taken
        path, headers = p.leader.heard[0]
        assert (path, headers["Authorization"]) == (PATH, "Bearer token")
        assert p.api.bodies[-1]["spec"] == {"token": "token", "audiences": [AUDIENCE]}
        assert (p.leader.codes, p.standby.codes) == (["200"], []), "each post is counted once"

    with_pair(scenario)


def test_the_leaders_refusal_is_passed_on() -> None:
    async def scenario(p: Pair) -> None:
        expected = await p.post(p.leader, {"trainerStatus": {"progressPercentage": 101}})
        assert expected[0] == 422
        assert await p.post(p.standby, {"trainerStatus": {"progressPercentage": 101}}) == expected
        p.api.faults[:] = [Fault("POST", "tokenreviews", status=201, body=review(authenticated=False))]
        assert (await p.post(p.standby, Authorization="Bearer other"))[0] == 401

    with_pair(scenario)


def test_a_post_is_handed_on_once() -> None:
    """Two replicas that take each other for the leader, as while the lease changes hands."""

    async def scenario(p: Pair) -> None:
        p.leader.leads, p.leader.leader = False, p.standby.address
        code, message = await p.post(p.standby)
        assert (code, "another replica handed the post on" in message) == (503, True)
        assert (len(p.standby.heard), len(p.leader.heard)) == (1, 1)

    with_pair(scenario)


@pytest.mark.parametrize("leader", ["", "127.0.0.1:1"], ids=["none", "gone"])
def test_without_a_leader_the_trainer_is_asked_to_post_again(leader: str) -> None:
    async def scenario(p: Pair) -> None:
        p.standby.leader = leader
        code, message = await p.post(p.standby)
        assert code == 503
        assert message.endswith("post again")
        assert p.standby.codes == ["503"]

    with_pair(scenario)


@pytest.mark.parametrize("authorization", ["", "Basic dXNlcg==", "Bearer "])
def test_a_post_without_a_token_goes_no_further(authorization: str) -> None:
    async def scenario(p: Pair) -> None:
        assert (await p.post(p.standby, Authorization=authorization))[0] == 401
        assert not p.leader.heard

    with_pair(scenario)


def test_a_body_that_is_too_large_goes_no_further() -> None:
    async def scenario(p: Pair) -> None:
        assert (await p.post(p.standby, b"x" * (LARGEST_BODY_BYTES + 1)))[0] == 413
        assert not p.leader.heard

    with_pair(scenario)


def strange_server(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], heard: list[str]
) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        heard.append(request.headers["Authorization"])
        return await answer(request)

    application = web.Application()
    application.router.add_post("/{tail:.*}", handle)
    return application


async def accepted(_: web.Request) -> web.Response:
    return web.json_response({"message": "accepted"})


async def silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def elsewhere(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect(f"https://{request.host}/more")


async def endless(_: web.Request) -> web.Response:
    return web.json_response({"message": "x" * LARGEST_ANSWER_BYTES})


async def unreadable(_: web.Request) -> web.Response:
    return web.Response(body=b"<html>")


async def no_status(_: web.Request) -> web.Response:
    return web.json_response([])


def tls_of(bundle: Bundle, folder: Any) -> ssl.SSLContext:
    path = folder / "tls.pem"
    path.write_bytes(bundle.certificate + bundle.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("which", ["another CA", "another name"])
def test_a_token_is_sent_to_none_but_one_of_us(which: str, tmp_path: Any) -> None:
    """Whoever can write the Lease can name any address: that must not be worth a token."""
    now = datetime.now(UTC)
    ours = renewed(None, [SERVICE], now)
    shown = renewed(None, [SERVICE], now) if which == "another CA" else renewed(ours, ["other.ns.svc"], now)

    async def main() -> None:
        heard: list[str] = []
        async with listening(strange_server(accepted, heard), tls_of(shown, tmp_path)) as address:
            forwarder = Forwarder(lambda: address, lambda: ours.ca.decode(), SERVICE)
            with pytest.raises(forward.NoLeader, match="certificate verify failed"):
                await forwarder.post(PATH, b"{}", "Bearer token")
            await forwarder.close()
        assert not heard

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (silent, "nothing within 0.3 s"),
        (endless, "longer than"),
        (elsewhere, "no Status"),
        (unreadable, "no Status"),
        (no_status, "no Status"),
    ],
)
def test_a_leader_that_does_not_answer_as_one_is_none(
    answer: Any, words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "TIMEOUT_SECONDS", 0.3)
    ours = renewed(None, [SERVICE], datetime.now(UTC))

    async def main() -> None:
        heard: list[str] = []
        async with listening(strange_server(answer, heard), tls_of(ours, tmp_path)) as address:
            forwarder = Forwarder(lambda: address, lambda: ours.ca.decode(), SERVICE)
            with pytest.raises(forward.NoLeader, match=words):
                await forwarder.post(PATH, b"{}", "Bearer token")
            await forwarder.close()
        assert heard == ["Bearer token"]

    asyncio.run(main())


def test_a_new_ca_is_trusted_as_soon_as_it_is_known(tmp_path: Any) -> None:
    now = datetime.now(UTC)
    old, new = renewed(None, [SERVICE], now), renewed(None, [SERVICE], now)

    async def main() -> None:
        known = old.ca.decode()
        async with listening(strange_server(accepted, []), tls_of(new, tmp_path)) as address:
            forwarder = Forwarder(lambda: address, lambda: known, SERVICE)
            with pytest.raises(forward.NoLeader):
                await forwarder.post(PATH, b"{}", "Bearer token")
            known = (new.ca + old.ca).decode()
            assert await forwarder.post(PATH, b"{}", "Bearer token") == (200, "accepted")
            await forwarder.close()

    asyncio.run(main())


def test_the_header_that_ends_a_loop_is_sent() -> None:
    async def scenario(p: Pair) -> None:
        await p.post(p.standby)
        assert FORWARDED in p.leader.heard[0][1]
        await p.post(p.leader)
        assert FORWARDED not in p.leader.heard[1][1]

    with_pair(scenario)
