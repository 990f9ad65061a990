"""Whole replicas in this process, against a server on a socket: what they wait for, how they share work."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.builders import (
    NAME,
    NAMESPACE,
    make_attempt,
    make_batch_job,
    make_job,
    make_node,
    make_pod,
    make_status,
)
from tests.unit.cluster.api_server import ApiServer, Fault, serving, until
from tests.unit.test_handlers import DISCOVERY
from tunewright import supervisor
from tunewright.cluster.credentials import AuthorizationSource, Credentials
from tunewright.core import names
from tunewright.server.progress import POD_UID
from tunewright.settings import load_settings
from tunewright.supervisor import CannotListen, Operator

SYSTEM = "tunewright-system"
LEASE = ("leases", SYSTEM, "tunewright")


@asynccontextmanager
async def cluster() -> AsyncIterator[ApiServer]:
    """A server that kopf, too, takes for a cluster."""
    async with serving() as server:
        for path, answer in DISCOVERY.items():
            server.documents[path] = json.dumps(answer).encode()
        try:
            yield server
        finally:
            gc.unfreeze()  # what a replica froze when it began to lead


@asynccontextmanager
async def replica(server: ApiServer, name: str) -> AsyncIterator[Operator]:
    """A replica that runs until the end of the block."""
    settings = load_settings(
        {
            "TUNEWRIGHT_NAMESPACE": SYSTEM,
            "POD_NAME": name,
            "TUNEWRIGHT_HTTP_BIND": "127.0.0.1:0",
            "TUNEWRIGHT_PROGRESS_BIND": "127.0.0.1:0",
            "TUNEWRIGHT_PROGRESS_URL": f"https://progress.{SYSTEM}.svc:8443",
            "TUNEWRIGHT_PROGRESS_STATUS_SECONDS": "0",
            "TUNEWRIGHT_STATUS_SECONDS": "0",
        }
    )
    operator = Operator(Credentials(server.url, None, AuthorizationSource(lambda: "Bearer token")), settings)
    stop = asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    try:
        yield operator
    finally:
        stop.set()
        await running


async def get(operator: Operator, path: str) -> tuple[int, str]:
    """Status and text of an answer of the replica's HTTP server."""
    host, port = operator.addresses["http"]
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as answer:
        return answer.status, await answer.text()


def test_a_missing_crd_is_said_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "CRD_POLL_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "tunewright.supervisor")

    async def main() -> None:
        async with cluster() as server:
            missing = Fault("GET", "/finetunejobs", status=404, times=10**6)
            away = Fault("GET", "/finetunejobs", status=503, times=99)
            server.faults.append(missing)
            async with replica(server, "one") as one:
                await until(lambda: server.count("GET", f"/{names.PLURAL}?limit=1") >= 5, "it looks again")
                assert (await get(one, "/readyz"))[0] == 503
                assert (await get(one, "/healthz"))[0] == 200, "a restart would not bring the CRD"
                assert LEASE not in server.objects, "a replica that can't work must not lead"
                server.faults[:] = [away]
                await until(
                    lambda: "cannot list FineTuneJobs yet" in caplog.text, "other trouble is told, too"
                )
                server.faults.clear()
                await until(lambda: one.is_leader(), "it works as soon as the CRD is there")
                assert (await get(one, "/readyz"))[0] == 200

    asyncio.run(main())
    said = [r for r in caplog.records if "waiting for the FineTuneJob CRD" in r.message]
    assert [record.levelname for record in said] == ["ERROR"]
    assert "tunewright crd | kubectl apply" in said[0].message


def test_an_address_that_is_taken_is_named_with_its_variable() -> None:
    async def main() -> None:
        async with cluster() as server:
            port = int(server.url.rpartition(":")[2])
            settings = load_settings({"TUNEWRIGHT_HTTP_BIND": f"127.0.0.1:{port}"})
            credentials = Credentials(server.url, None, AuthorizationSource(lambda: None))
            words = rf"127.0.0.1 port {port} \(TUNEWRIGHT_HTTP_BIND\): Address already in use; name another"
            with pytest.raises(CannotListen, match=words):
                await Operator(credentials, settings).run(asyncio.Event())

    asyncio.run(main())


async def put_running_job(server: ApiServer) -> str:
    """A job whose only attempt trains; the uid of a worker."""
    worker = make_batch_job(names.COMPONENT_TRAIN)
    pods = [make_pod(worker, index) for index in range(2)]
    objects = [
        ("nodes", make_node("node-a")),
        ("finetunejobs", make_job(status=make_status(make_attempt(), phase="Running", reason="Training"))),
        ("jobs", worker),
        *(("pods", pod) for pod in pods),
    ]
    for plural, manifest in objects:
        await server.put(plural, manifest)
    uid: str = pods[0]["metadata"]["uid"]
    return uid


def review_of(pod_uid: str) -> Fault:
    """TokenReview that takes every token for that of a worker."""
    user = {"username": f"system:serviceaccount:{NAMESPACE}:default", "extra": {POD_UID: [pod_uid]}}
    audiences = [names.progress_audience(NAMESPACE, NAME)]
    status = {"authenticated": True, "audiences": audiences, "user": user}
    return Fault("POST", "tokenreviews", status=201, body={"status": status}, times=10**6)


async def post(server: ApiServer, to: Operator, step: int) -> tuple[int, str]:
    """What a replica answers to a trainer that trusts the stored CA and knows the Service's name."""
    secret = server.objects[("secrets", SYSTEM, "tunewright-progress-tls")]
    trusted = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    host, port = to.addresses["progress"]
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs/{NAME}/status"
    body = {"trainerStatus": {"tunewright": {"step": step, "total_steps": 100, "loss": 2.5}}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://{host}:{port}{path}",
            json=body,
            headers={"Authorization": "Bearer token"},
            ssl=trusted,
            server_hostname=f"progress.{SYSTEM}.svc",
        ) as answer,
    ):
        return answer.status, (await answer.json())["message"]


def test_progress_that_reaches_a_standby_is_in_the_jobs_status() -> None:
    async def main() -> None:
        async with cluster() as server:
            server.faults.append(review_of(await put_running_job(server)))
            async with replica(server, "one") as one:
                await until(one.is_leader)
                async with replica(server, "two") as two:
                    await until(lambda: bool(two.elector.leader_address), "the standby has read the Lease")
                    host, port = one.addresses["progress"]
                    assert two.elector.leader_address == f"{host}:{port}"
                    assert not two.is_leader()
                    assert await post(server, two, 4) == (200, "accepted")
                    key = ("finetunejobs", NAMESPACE, NAME)
                    await until(
                        lambda: server.objects[key]["status"].get("progress", {}).get("step") == 4,
                        "the leader writes it",
                    )
            annotations = server.objects[LEASE]["metadata"]["annotations"]
            assert annotations == {}, "a replica that has ended is not to be asked"

    asyncio.run(main())
