"""Progress reaches the operator over TLS with rotated files, and never disturbs training."""

from __future__ import annotations

import ipaddress
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tunewright_trainer.contract import ProgressPost
from tunewright_trainer.progress import Poster, Progress, Remaining, Silent, reporter, sender
from tunewright_trainer.progress_metrics import serve

DEADLINE_SECONDS = 20.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A new self-signed certificate for 127.0.0.1 as ``ca.crt`` with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "ca.crt", folder / "tls.key"


@dataclass
class Received:
    posts: list[ProgressPost] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    port: int = 0


@contextmanager
def server(certificate: Path, key: Path) -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.tokens.append(str(self.headers["Authorization"]))
            received.posts.append(ProgressPost.model_validate_json(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    received.port = listening.server_port
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield received
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def test_token_and_certificate_are_read_anew_for_each_post(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    token = tmp_path / "token"
    token.write_text("first\n")

    def send_to(port: int) -> None:
        send = sender(
            {
                "KUBEFLOW_TRAINER_SERVER_URL": f"https://127.0.0.1:{port}/status",
                "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(certificate),
                "KUBEFLOW_TRAINER_SERVER_TOKEN": str(token),
            }
        )
        assert send is not None
        send(
            Progress(attempt=1, step=3, total_steps=6)
            .post(datetime.now(UTC))
            .model_dump_json(by_alias=True)
            .encode()
        )

    with server(certificate, key) as first:
        send_to(first.port)
        token.write_text("second\n")
        send_to(first.port)
        assert first.tokens == ["Bearer first", "Bearer second"]
        assert first.posts[0].trainer_status.progress_percentage == 50
    write_certificate(tmp_path)
    with server(certificate, key) as second:
        send_to(second.port)
        assert len(second.posts) == 1


def test_an_untrusted_server_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs, ours = write_certificate(tmp_path / "theirs"), write_certificate(tmp_path / "ours")
    with server(*theirs) as received:
        send = sender(
            {
                "KUBEFLOW_TRAINER_SERVER_URL": f"https://127.0.0.1:{received.port}/status",
                "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(ours[0]),
            }
        )
        assert send is not None
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            send(b"{}")
        assert received.posts == []


class Sink:
    """A send function that keeps what it gets."""

    def __init__(self) -> None:
        self.steps: list[int | None] = []

    def __call__(self, body: bytes) -> None:
        own = ProgressPost.model_validate_json(body).trainer_status.tunewright
        assert own is not None
        self.steps.append(own.step)


def test_posts_are_throttled_and_the_last_one_is_never_lost() -> None:
    sink = Sink()
    poster = Poster(Progress(attempt=1), sink, interval_seconds=3600)
    poster.update(step=1)
    wait_for(lambda: sink.steps == [1])
    for step in range(2, 100):
        poster.update(step=step)
    assert sink.steps == [1]
    poster.close()
    assert sink.steps == [1, 99]


def test_silence_of_the_trainer_is_silence_on_the_wire() -> None:
    sink = Sink()
    poster = Poster(Progress(attempt=1), sink, interval_seconds=0.01)
    poster.update(step=1)
    wait_for(lambda: sink.steps == [1])
    poster.update()  # a sign of life without news, as during an evaluation
    wait_for(lambda: sink.steps == [1, 1])
    poster.close()
    assert sink.steps == [1, 1]


def test_a_failing_or_hanging_post_does_not_hold_training_up(caplog: pytest.LogCaptureFixture) -> None:
    release, attempts = Event(), []

    def send(_body: bytes) -> None:
        attempts.append(1)
        release.wait(DEADLINE_SECONDS)
        raise OSError("the operator is away")

    poster = Poster(Progress(attempt=1), send, interval_seconds=0.01)
    poster.update(step=0)
    wait_for(lambda: len(attempts) == 1)
    began = time.monotonic()
    for step in range(1, 1000):
        poster.update(step=step)
    assert time.monotonic() - began < DEADLINE_SECONDS / 2
    release.set()
    wait_for(lambda: len(attempts) >= 2)
    poster.close()
    complaints = [record for record in caplog.records if "training goes on" in record.getMessage()]
    assert len(complaints) == 1


def test_a_post_speaks_kubeflows_language_and_ours() -> None:
    progress = Progress(attempt=2, step=30, total_steps=120, loss=1.25, remaining_seconds=89.6)
    body = progress.post(datetime(2026, 11, 24, tzinfo=UTC)).model_dump(by_alias=True, exclude_none=True)
    status = body["trainerStatus"]
    assert status["progressPercentage"] == 25
    assert status["estimatedRemainingSeconds"] == 90
    assert status["lastUpdatedTime"] == "2026-11-24T00:00:00+00:00"
    assert status["metrics"] == [{"name": "loss", "value": "1.25"}]
    assert status["tunewright"]["attempt"] == 2


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_an_estimate_is_no_longer_than_the_contract_allows(seconds: float) -> None:
    post = Progress(attempt=1, remaining_seconds=seconds).post(datetime(2026, 11, 24, tzinfo=UTC))
    assert post.trainer_status.estimated_remaining_seconds == 315_360_000


def test_time_left_counts_from_the_steps_of_this_process() -> None:
    now = [100.0]
    remaining = Remaining(lambda: now[0])
    assert remaining.seconds(50, 100) is None
    now[0] = 110.0
    assert remaining.seconds(55, 100) == pytest.approx(90.0)


def test_without_a_url_and_without_metrics_nothing_runs() -> None:
    assert isinstance(reporter(Progress(attempt=1), environment={}), Silent)


def test_metrics_are_served() -> None:
    from tests.trainer.gang_rig import free_port

    port = free_port()
    take = serve(f"127.0.0.1:{port}", "team-a", "support-bot")
    take(Progress(attempt=1, step=7, total_steps=20, loss=0.5))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'tunewright_training_step{job="support-bot",namespace="team-a"} 7.0' in text
    assert 'tunewright_training_loss{job="support-bot",namespace="team-a"} 0.5' in text
