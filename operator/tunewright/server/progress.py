"""Where trainers report progress: Kubeflow's wire contract (KEP-2779) over HTTPS.

A stock Hugging Face Trainer in a custom image reports here with no code of ours. The token proves more than
TokenReview alone tells: it is bound to a pod, and that pod must belong to the job's current attempt and still
run, because a token outlives the pod that it was made for.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from tunewright.cluster.client import Client
from tunewright.cluster.errors import ApiError
from tunewright.cluster.resources import TOKENREVIEWS
from tunewright.core import names
from tunewright.server.forward import FORWARDED, Forwarder, NoLeader
from tunewright_trainer.contract import ProgressPost, TunewrightProgress

log = logging.getLogger(__name__)

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs/{name}/status"
LARGEST_BODY_BYTES = 64 * 1024
REMEMBER_ACCEPTED_SECONDS = 60.0
REMEMBER_REFUSED_SECONDS = 10.0
MOST_REMEMBERED = 10_000
MOST_REVIEWS_AT_ONCE = 8
NO_TOKEN = "send the pod's projected token as a Bearer token"
POD_UID = "authentication.kubernetes.io/pod-uid"

IsCurrentWorker = Callable[[str, str, str], bool]
"""Namespace, job and pod uid: may this pod report?"""
OnProgress = Callable[[str, str, str, ProgressPost], None]
"""Namespace, job, pod uid and what it reported."""


@dataclass(frozen=True)
class Identity:
    """Who a token belongs to, as the API server sees it."""

    namespace: str
    pod_uid: str


class TokenChecker:
    """Asks TokenReview, and remembers the answer for a minute by a hash of token and audience."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Identity | None]] = OrderedDict()
        self._reviews = asyncio.Semaphore(MOST_REVIEWS_AT_ONCE)

    async def identity(self, token: str, audience: str) -> Identity | None:
        """The pod that ``token`` was made for, or None if it is not valid for ``audience``.

        Raises ApiError when the API server can't be asked.
        """
        key = hashlib.sha256(f"{audience}\0{token}".encode()).digest()
        until, identity = self._known.get(key, (0.0, None))
        if self._clock() < until:
            return identity
        async with self._reviews:
            identity = await self._review(token, audience)
        seconds = REMEMBER_ACCEPTED_SECONDS if identity else REMEMBER_REFUSED_SECONDS
        self._known.pop(key, None)
        self._known[key] = (self._clock() + seconds, identity)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return identity

    async def _review(self, token: str, audience: str) -> Identity | None:
        review = {
            "apiVersion": TOKENREVIEWS.api_version,
            "kind": TOKENREVIEWS.kind,
            "spec": {"token": token, "audiences": [audience]},
        }
        status = (await self._client.create(TOKENREVIEWS, review)).get("status") or {}
        # A server that does not know audiences says authenticated and lists none: not good enough.
        if not status.get("authenticated") or audience not in (status.get("audiences") or []):
            return None
        user: dict[str, Any] = status.get("user") or {}
        prefix, _, rest = str(user.get("username")).partition("system:serviceaccount:")
        pod_uids = (user.get("extra") or {}).get(POD_UID) or []
        if prefix or not rest or len(pod_uids) != 1:
            return None
        return Identity(rest.partition(":")[0], pod_uids[0])


class ProgressServer:
    """The handler of progress posts. ``accepts`` is False on a replica that does not lead: what it hears, it
    hands on by ``forwarder``, for the leader would never know. ``count`` is told of each answer that was
    made here, not of those that the leader made."""

    def __init__(
        self,
        checker: TokenChecker,
        is_current_worker: IsCurrentWorker,
        on_progress: OnProgress,
        *,
        accepts: Callable[[], bool] = lambda: True,
        forwarder: Forwarder | None = None,
        count: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._checker = checker
        self._is_current_worker = is_current_worker
        self._on_progress = on_progress
        self._accepts = accepts
        self._forwarder = forwarder
        self._count = count

    def application(self) -> web.Application:
        """To be served over TLS."""
        application = web.Application(client_max_size=LARGEST_BODY_BYTES)
        application.router.add_post(PATH, self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            if not self._accepts():
                return await self._hand_on(request)
            code, message = await self._post(request)
        except web.HTTPRequestEntityTooLarge:
            code, message = 413, f"the body is larger than {LARGEST_BODY_BYTES} bytes"
        except ApiError as error:
            log.warning("a progress post could not be checked: %s", error)
            code, message = 503, "the token could not be checked now; post again"
        except NoLeader as error:
            code, message = 503, f"this replica does not lead, and {error}; post again"
        return self._answer(request, code, message)

    def _answer(self, request: web.Request, code: int, message: str) -> web.Response:
        self._count(str(code))
        if code != 200:
            log.debug("progress post to %s answered %d: %s", request.path, code, message)
        return web.json_response(_status(code, message), status=code)

    async def _hand_on(self, request: web.Request) -> web.Response:
        """Ask the leader, which alone checks token and body. Raises NoLeader."""
        if not _token(request):
            return self._answer(request, 401, NO_TOKEN)
        if FORWARDED in request.headers:
            raise NoLeader("another replica handed the post on to it")
        if self._forwarder is None:
            raise NoLeader("it knows of none that does")
        body = await request.read()
        code, message = await self._forwarder.post(
            request.rel_url.raw_path, body, request.headers["Authorization"]
        )
        return web.json_response(_status(code, message), status=code)

    async def _post(self, request: web.Request) -> tuple[int, str]:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        token = _token(request)
        if not token:
            return 401, NO_TOKEN
        identity = await self._checker.identity(token, names.progress_audience(namespace, name))
        if identity is None:
            return 401, f"the token is not valid for audience {names.progress_audience(namespace, name)}"
        if identity.namespace != namespace or not self._is_current_worker(namespace, name, identity.pod_uid):
            return 403, f"pod {identity.pod_uid} is no running worker of {namespace}/{name}'s current attempt"
        try:
            post = _with_our_fields(ProgressPost.model_validate_json(await request.read()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return 422, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
        self._on_progress(namespace, name, identity.pod_uid, post)
        return 200, "accepted"


def _token(request: web.Request) -> str:
    """The Bearer token, empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _with_our_fields(post: ProgressPost) -> ProgressPost:
    """The post with our own part filled from Kubeflow's metrics where a stock client sent none.

    Raises ValidationError for figures that our part may not hold.
    """
    status = post.trainer_status
    if status.tunewright is not None:
        return post
    ours = TunewrightProgress(**_from_metrics(post))
    return post.model_copy(update={"trainer_status": status.model_copy(update={"tunewright": ours})})


def _from_metrics(post: ProgressPost) -> dict[str, Any]:
    """Our fields from the metrics that a stock Hugging Face Trainer sends (as strings)."""
    fields: dict[str, tuple[str, type[int] | type[float]]] = {
        "current_step": ("step", int),
        "total_steps": ("total_steps", int),
        "current_epoch": ("epoch", float),
        "epoch": ("epoch", float),
        "loss": ("loss", float),
        "eval_loss": ("eval_loss", float),
        "learning_rate": ("learning_rate", float),
        "grad_norm": ("grad_norm", float),
    }
    values: dict[str, Any] = {}
    for metric in post.trainer_status.metrics:
        if metric.name not in fields:
            continue
        field, convert = fields[metric.name]
        try:
            values[field] = convert(float(metric.value))
        except (ValueError, OverflowError):
            log.debug("metric %s has value %r, which is no number", metric.name, metric.value)
    return values


def _status(code: int, message: str) -> dict[str, Any]:
    """A Kubernetes Status: what Kubeflow's own server answers with."""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Success" if code == 200 else "Failure",
        "code": code,
        "message": message,
    }
