"""Posts progress for pods without a process, with the token and the certificate that a real rank 0 has."""

from __future__ import annotations

import asyncio
import logging
import ssl
from types import TracebackType
from typing import Any, Self

import aiohttp

from bench.answers import progress_post
from hack.devcluster.api import UNREACHABLE, Api, ApiError
from tunewright_trainer.contract import ENV_PROGRESS_URL

Object = dict[str, Any]
log = logging.getLogger(__name__)

TRY_AGAIN_SECONDS = 0.2


class Poster:
    """Posts for any number of pods. Use as an async context manager."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self.accepted = 0
        self.refused = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    async def post_for(self, pod: Object, every_seconds: float) -> None:
        """Post a step further every ``every_seconds``, the first after as long, until cancelled.

        Returns at once for a pod that was not told where to post.
        """
        url = _environment(pod).get(ENV_PROGRESS_URL)
        if url is None:
            return
        step, token, session = 0, None, None
        await asyncio.sleep(every_seconds)
        while True:
            step += 1
            try:
                token = token or await self._token(pod)
                session = session or await self._session(pod)
                accepted = await self._post(session, url, token, step)
            except (ApiError, *UNREACHABLE) as error:
                log.info("No post for %s: %s", pod["metadata"]["name"], error or type(error).__name__)
                accepted = False
            self.accepted += accepted
            self.refused += not accepted
            await asyncio.sleep(every_seconds if accepted else min(TRY_AGAIN_SECONDS, every_seconds))

    async def _post(self, session: aiohttp.ClientSession, url: str, token: str, step: int) -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.post(url, json=progress_post(step), headers=headers) as response:
            text = await response.text()
            if response.status != 200:
                log.info("Post to %s answered %d: %s", url, response.status, text)
            return response.status == 200

    async def _token(self, pod: Object) -> str:
        """What kubelet would project: bound to the pod, for the audience that the volume names."""
        metadata, asked = pod["metadata"], _projection(pod, "serviceAccountToken")
        account = pod["spec"].get("serviceAccountName", "default")
        request = {
            "spec": {
                "audiences": [asked["audience"]],
                "expirationSeconds": asked["expirationSeconds"],
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            }
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        token: str = (await self._api.create(path, request))["status"]["token"]
        return token

    async def _session(self, pod: Object) -> aiohttp.ClientSession:
        """One session per certificate authority, so that pods share connections."""
        source = _projection(pod, "configMap")
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/configmaps/{source['name']}"
        authority = (await self._api.get(path))["data"][source["items"][0]["key"]]
        if authority not in self._sessions:
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority), limit=16)
            timeout = aiohttp.ClientTimeout(total=30)
            self._sessions[authority] = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._sessions[authority]


def _environment(pod: Object) -> dict[str, str]:
    entries = pod["spec"]["containers"][0].get("env") or []
    return {entry["name"]: entry.get("value", "") for entry in entries}


def _projection(pod: Object, kind: str) -> Object:
    """The first projected source of ``kind``; raises LookupError when the pod has none."""
    for volume in pod["spec"].get("volumes") or []:
        for source in (volume.get("projected") or {}).get("sources") or []:
            if kind in source:
                found: Object = source[kind]
                return found
    raise LookupError(f"pod {pod['metadata']['name']} projects no {kind}")
