"""A standby's way to the leader: progress that reaches the wrong replica is handed on, not lost.

A Service spreads posts over all replicas, while only the leader knows the jobs. The Lease tells where the
leader listens. The trainer's token is handed on too, so the peer has to prove by a certificate of our own CA
that it is one of us: with the address alone, whoever may write the Lease could collect tokens.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable

import aiohttp

from tunewright.cluster.transport import USER_AGENT, close_session

log = logging.getLogger(__name__)

FORWARDED = "Tunewright-Forwarded"
"""Header of a post that a replica handed on: it is not handed on again."""
TIMEOUT_SECONDS = 5.0
"""Of a trainer's ten seconds, the waiting for a connection included."""
MOST_CONNECTIONS = 16
LARGEST_ANSWER_BYTES = 16 * 1024

Answer = tuple[int, str]
"""HTTP status and message."""


class NoLeader(Exception):
    """No replica leads, or the one that does gave no usable answer. The text says which."""


class Forwarder:
    """Hands posts on. ``leader`` gives host:port, ``ca_pem`` the PEM text of the CAs to trust, ``hostname``
    the name that every replica's certificate has: they share one, made for the Service. Close it at the end.
    """

    def __init__(self, leader: Callable[[], str], ca_pem: Callable[[], str], hostname: str) -> None:
        self._leader = leader
        self._ca_pem = ca_pem
        self._hostname = hostname
        self._session: aiohttp.ClientSession | None = None
        self._trusted = ""
        self._context: ssl.SSLContext | None = None

    async def post(self, path: str, body: bytes, authorization: str) -> Answer:
        """What the leader answers. Raises NoLeader."""
        address = self._leader()
        if not address:
            raise NoLeader("no replica leads now")
        headers = {"Authorization": authorization, "Content-Type": "application/json", FORWARDED: "true"}
        try:
            async with self._connected().post(
                f"https://{address}{path}",
                data=body,
                headers=headers,
                ssl=self._trust(),
                server_hostname=self._hostname,
                allow_redirects=False,
            ) as answer:
                return answer.status, _message(await _bounded(answer.content))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("the leader at %s did not take a progress post: %s", address, _words(error))
            raise NoLeader(f"the leader did not answer ({_words(error)})") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await close_session(self._session)
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        """The session, made on first use: it belongs to the event loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                headers={"User-Agent": USER_AGENT},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _trust(self) -> ssl.SSLContext:
        """A context for the present CAs, kept until they change."""
        pem = self._ca_pem()
        if self._context is None or pem != self._trusted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=pem)
            self._context, self._trusted = context, pem
        return self._context


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            raise ValueError(f"its answer is longer than {LARGEST_ANSWER_BYTES} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    """The message of a Kubernetes Status. Raises ValueError."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, LookupError, TypeError):
        message = None
    if not isinstance(message, str):
        raise ValueError("its answer is no Status")
    return message


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {TIMEOUT_SECONDS:g} s"
    return str(error) or type(error).__name__
