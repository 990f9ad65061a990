"""Real HTTP(S) servers on loopback for storage tests: scripted answers, and one that speaks the hub's API."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""


@dataclass
class Server:
    url: str
    requests: list[Request] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    """Shakes hands in the connection's own thread, and closes what a client broke off."""

    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            return super().finish_request(request, client_address)
        try:
            wrapped = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            with wrapped:
                wrapped.do_handshake()
                super().finish_request(wrapped, client_address)
        except (ssl.SSLError, ConnectionError):
            return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: a client that goes away is part of several tests."""


@contextmanager
def serving(answer: Callable[[Request], Response], certificate: Path | None = None) -> Iterator[Server]:
    """Serve ``answer`` on a free port of 127.0.0.1; over TLS with ``certificate`` (key and chain, PEM)."""
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            server.requests.append(request)
            response = answer(request)
            self.send_response(response.status)
            headers = {"Content-Length": str(len(response.body)), **response.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body[: response.cut_after])
            if response.cut_after is not None:
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: pytest shows what matters."""

    http = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        http.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        http.tls.load_cert_chain(certificate)
    server.url = f"{'https' if http.tls else 'http'}://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def write_certificate(path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test server")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@dataclass
class Hub:
    """Repositories by ``models/org/name`` or ``datasets/org/name``: files of one commit, and who may read."""

    repositories: dict[str, dict[str, bytes]]
    commit: str = "c0ffee" + "0" * 34
    token: str | None = None
    """If set, requests without it get what a hub answers for a private repository."""
    gated: bool = False
    broken: bool = False

    def answer(self, request: Request) -> Response:
        path = unquote(urlsplit(request.path).path)
        if self.broken:
            return Response(503, b"try later")
        if self.gated:
            return Response(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        for repository, files in self.repositories.items():
            if path.startswith(f"/api/{repository}/"):
                return self._describe(path.removeprefix(f"/api/{repository}/"), files)
            if path == f"/api/{repository}":
                return self._describe("revision/main", files)
            prefix = "/" + repository.removeprefix("models/") + "/resolve/"
            if path.startswith(prefix):
                return self._resolve(path.removeprefix(prefix), files)
        return Response(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _describe(self, path: str, files: dict[str, bytes]) -> Response:
        kind, _, revision = path.partition("/")
        if revision.partition("/")[0] not in ("main", "v1", self.commit):
            return Response(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if kind == "tree":
            body: object = [
                {"type": "file", "path": name, "size": len(content), "oid": _sha1(content)}
                for name, content in files.items()
            ]
        else:
            body = {"id": "x", "sha": self.commit, "siblings": [{"rfilename": name} for name in files]}
        return Response(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str, files: dict[str, bytes]) -> Response:
        revision, _, name = path.partition("/")
        if revision != self.commit or name not in files:
            return Response(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{_sha1(files[name])}"', "X-Repo-Commit": self.commit}
        return Response(200, files[name], headers)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
