"""What is sent, what is tried again, and what is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving, until
from tunewright.cluster.client import Client
from tunewright.cluster.credentials import AuthorizationSource, Credentials
from tunewright.cluster.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotLeader,
    Overloaded,
    Unauthorized,
    Unreachable,
    error_from,
)
from tunewright.cluster.resources import CONFIGMAPS, FINETUNEJOBS, NODES, PODS, TOKENREVIEWS, of
from tunewright.cluster.transport import RetryPolicy, Transport

Scenario = Callable[[ApiServer, Client], Awaitable[None]]


def with_server(scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server, **options) as client:
            await scenario(server, client)

    asyncio.run(main())


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ns", "p", "log") == "/api/v1/namespaces/ns/pods/p/log"
    assert NODES.path("ignored", "n") == "/api/v1/nodes/n"
    assert FINETUNEJOBS.path("ns", "j", "status").endswith("/v1alpha1/namespaces/ns/finetunejobs/j/status")
    assert PODS.path("ns", "../../secrets") == "/api/v1/namespaces/ns/pods/..%2F..%2Fsecrets"
    with pytest.raises(ValueError, match="namespace"):
        PODS.path(None, "p")
    assert of({"apiVersion": "batch/v1", "kind": "Job"}).plural == "jobs"
    with pytest.raises(KeyError, match="apps/v1 Deployment"):
        of({"apiVersion": "apps/v1", "kind": "Deployment"})


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", BadRequest),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (418, "Teapot", ApiError),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Overloaded),
        (503, "ServiceUnavailable", Overloaded),
    ],
)
def test_each_status_has_its_error(status: int, reason: str, kind: type[ApiError]) -> None:
    error = error_from(status, {"reason": reason, "message": "words"})
    assert type(error) is kind
    assert (error.status, error.reason, error.message) == (status, reason, "words")


def test_errors_read_any_body() -> None:
    assert error_from(502, b"<html>bad gateway</html>").message == "<html>bad gateway</html>"
    assert error_from(500, b"").message == "the API server gave no reason"
    assert error_from(500, b"[1]").message == "[1]"
    terminating = {"details": {"causes": [{"reason": "NamespaceTerminating"}], "retryAfterSeconds": 3}}
    error = error_from(403, terminating)
    assert error.namespace_terminating
    assert error.retry_after_seconds == 3
    assert error_from(429, {}, retry_after="Wed, 21 Oct").retry_after_seconds is None


def test_create_get_list_replace_patch_delete() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        stored = await client.create(CONFIGMAPS, config_map(x="1"))
        assert (await client.get(CONFIGMAPS, "ns", "a"))["data"] == {"x": "1"}
        stored["data"]["x"] = "2"
        replaced = await client.replace(CONFIGMAPS, stored)
        with pytest.raises(Conflict):
            await client.replace(CONFIGMAPS, stored)
        patched = await client.patch(CONFIGMAPS, "ns", "a", {"data": {"y": "3"}})
        assert patched["data"] == {"x": "2", "y": "3"}
        with pytest.raises(Conflict):
            await client.delete(CONFIGMAPS, "ns", "a", uid="another")
        with pytest.raises(Conflict):
            await client.delete(
                CONFIGMAPS, "ns", "a", resource_version=replaced["metadata"]["resourceVersion"]
            )
        uid = stored["metadata"]["uid"]
        await client.delete(CONFIGMAPS, "ns", "a", uid=uid, grace_seconds=0, propagation="Foreground")
        assert server.bodies[-1] == {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": uid},
        }
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, "ns", "a")

    with_server(scenario)


def test_lists_are_read_page_by_page_and_say_what_their_items_are() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        for index in range(5):
            await server.put("configmaps", config_map(f"c{index}"))
        items, version = await client.list(CONFIGMAPS, "ns", page_size=2)
        assert [item["metadata"]["name"] for item in items] == ["c0", "c1", "c2", "c3", "c4"]
        assert {item["kind"] for item in items} == {"ConfigMap"}
        assert {item["apiVersion"] for item in items} == {"v1"}
        assert version == str(server.version)
        assert server.count("GET") == 3

    with_server(scenario)


def test_a_page_is_cut_down_before_the_next_is_asked_for() -> None:
    """A list of thousands of whole pods would take hundreds of megabytes that no one gives back."""

    async def scenario(server: ApiServer, client: Client) -> None:
        for index in range(4):
            await server.put("configmaps", config_map(f"c{index}", big="x"))
        cut_before_page: list[int] = []

        def strip(item: dict[str, Any]) -> dict[str, Any]:
            cut_before_page.append(server.count("GET"))
            return {"metadata": item["metadata"]}

        items, _ = await client.list(CONFIGMAPS, "ns", page_size=2, strip=strip)
        assert cut_before_page == [1, 1, 2, 2]
        assert all("data" not in item for item in items)

    with_server(scenario)


def test_an_empty_list_is_a_list() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        assert await client.list(CONFIGMAPS, "ns", page_size=2) == ([], str(server.version))

    with_server(scenario)


def test_status_is_patched_under_its_resource_version() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        metadata = {"namespace": "ns", "name": "j"}
        stored = await server.put("finetunejobs", {"kind": "FineTuneJob", "metadata": metadata})
        version = stored["metadata"]["resourceVersion"]
        await client.patch_status(FINETUNEJOBS, "ns", "j", {"phase": "Running"}, version)
        assert server.requests[-1].split("?")[0].endswith("/finetunejobs/j/status")
        assert server.headers[-1]["Content-Type"] == "application/merge-patch+json"
        with pytest.raises(Conflict):
            await client.patch_status(FINETUNEJOBS, "ns", "j", {"phase": "Failed"}, version)

    with_server(scenario)


def test_metadata_only_is_asked_for_in_the_accept_header() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        await server.put("secrets", config_map())
        await client.get(
            of({"apiVersion": "v1", "kind": "Secret"}), "ns", "a", metadata_only=True
        )  # fmt: skip
        assert "as=PartialObjectMetadata;" in server.headers[-1]["Accept"]
        assert server.headers[-1]["User-Agent"].startswith("tunewright/")

    with_server(scenario)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        await server.put("configmaps", config_map())
        server.faults.append(Fault("GET", status=status, times=3))
        assert (await client.get(CONFIGMAPS, "ns", "a"))["metadata"]["name"] == "a"
        assert len(server.requests) == 4
        server.faults.append(Fault("GET", status=status, times=4))
        with pytest.raises(Overloaded):
            await client.get(CONFIGMAPS, "ns", "a")
        assert len(server.requests) == 8

    with_server(scenario)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        server.faults.append(Fault("GET", status=status))
        with pytest.raises(ApiError):
            await client.get(CONFIGMAPS, "ns", "a")
        assert len(server.requests) == 1

    with_server(scenario)


def test_an_answer_lost_after_a_named_create_shows_as_already_exists() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        server.faults.append(Fault("POST", cut="after"))
        with pytest.raises(AlreadyExists):
            await client.create(CONFIGMAPS, config_map())
        assert len(server.objects) == 1

    with_server(scenario)


def test_a_create_without_a_name_is_sent_once() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        server.faults.append(Fault("POST", cut="before", times=2))
        with pytest.raises(Unreachable):
            await client.create(TOKENREVIEWS, {"spec": {"token": "t"}})
        assert len(server.requests) == 1

    with_server(scenario)


def test_too_many_requests_is_safe_to_repeat_even_for_a_create_without_a_name() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        server.faults.append(Fault("POST", status=429, times=10))
        with pytest.raises(Overloaded):
            await client.create(TOKENREVIEWS, {"spec": {"token": "t"}})
        assert len(server.requests) == 4

    with_server(scenario)


def test_retry_after_is_a_minimum() -> None:
    policy = RetryPolicy(base_seconds=0.1, cap_seconds=1)
    assert policy.pause(0, 7.0) == 7.0
    assert policy.pause(0, 1000.0) == 30.0
    pauses = [policy.pause(9, None) for _ in range(200)]
    assert 0 <= min(pauses) < 0.2 < 0.8 < max(pauses) <= 1.0


def test_no_more_requests_in_flight_than_allowed() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        await server.put("configmaps", config_map())
        server.gate = asyncio.Event()
        requests = [asyncio.create_task(client.get(CONFIGMAPS, "ns", "a")) for _ in range(50)]
        await until(lambda: server.at_gate == 4)
        server.gate.set()
        await asyncio.gather(*requests)
        assert server.most_at_gate == 4

    with_server(scenario, max_in_flight=4)


def test_a_replica_that_does_not_lead_reads_but_does_not_write() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        await server.put("configmaps", config_map())
        await client.get(CONFIGMAPS, "ns", "a")
        for write in (
            client.create(CONFIGMAPS, config_map("b")),
            client.patch(CONFIGMAPS, "ns", "a", {"data": {}}),
            client.delete(CONFIGMAPS, "ns", "a"),
        ):
            with pytest.raises(NotLeader):
                await write
        assert server.count("GET") == len(server.requests) == 1

    with_server(scenario, may_write=lambda: False)


def test_a_rejected_token_is_read_anew_once() -> None:
    async def main() -> None:
        tokens = iter(["old", "new", "newer"])
        async with serving() as server:
            await server.put("configmaps", config_map())
            server.faults.append(Fault("GET", status=401))
            source = AuthorizationSource(lambda: f"Bearer {next(tokens)}")
            async with Client(Transport(Credentials(server.url, None, source))) as client:
                await client.get(CONFIGMAPS, "ns", "a")
                assert [h["Authorization"] for h in server.headers] == ["Bearer old", "Bearer new"]
                server.faults.append(Fault("GET", status=401, times=9))
                with pytest.raises(Unauthorized):
                    await client.get(CONFIGMAPS, "ns", "a")
                assert len(server.requests) == 4

    asyncio.run(main())


def test_requests_are_observed_by_verb_resource_and_code() -> None:
    seen: list[tuple[str, str, str]] = []

    async def scenario(server: ApiServer, client: Client) -> None:
        # Twice: aiohttp itself repeats a GET once whose connection was closed without an answer.
        server.faults += [Fault("GET", cut="before", times=2), Fault("GET", status=503)]
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, "ns", "a")
        await client.create(CONFIGMAPS, config_map())

    with_server(scenario, observe=lambda verb, resource, code, seconds: seen.append((verb, resource, code)))
    codes = [code for verb, _, code in seen if verb == "get"]
    assert codes == ["error", "503", "404"]
    assert seen[-1] == ("create", "configmaps", "201")


def test_nobody_listens() -> None:
    async def main() -> None:
        async with serving() as server:
            client = client_of(server)
        async with client:
            with pytest.raises(Unreachable, match="no answer from the API server"):
                await client.get(CONFIGMAPS, "ns", "a")

    asyncio.run(main())


def test_something_else_than_json_is_no_answer() -> None:
    async def scenario(server: ApiServer, client: Client) -> None:
        server.faults.append(Fault("GET", raw=b"<html>welcome to the hotel's network</html>", times=4))
        with pytest.raises(Unreachable, match="something else than JSON"):
            await client.get(CONFIGMAPS, "ns", "a")

    with_server(scenario)
