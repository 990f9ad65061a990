"""https:// sources against a real TLS server: whole or not at all, and told apart when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.servers import Request, Response, Server, serving, write_certificate
from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.storage.http import WAITS_SECONDS, HttpStore

BODY = b'{"text": "x"}\n' * 1000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server's certificate is trusted, as a private authority would be in an image."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def script(*responses: Response) -> list[Response]:
    return list(responses)


@pytest.fixture
def responses() -> list[Response]:
    """What the server answers, one after the other; the last one again and again."""
    return []


@pytest.fixture
def server(certificate: Path, responses: list[Response]) -> Iterator[Server]:
    def answer(_request: Request) -> Response:
        return responses.pop(0) if len(responses) > 1 else responses[0]

    with serving(answer, certificate) as server:
        yield server


class Waits(list[float]):
    """Records the waits between tries instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def store(server: Server, folder: Path, waits: Waits | None = None, **more: object) -> HttpStore:
    return HttpStore(
        f"{server.url}/data/train%20v1.jsonl?download=1",
        authorization=more.get("authorization"),  # type: ignore[arg-type]
        downloads=folder,
        size_limit_bytes=more.get("limit", 1 << 30),  # type: ignore[arg-type]
        sleep=waits if waits is not None else Waits(),
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("trusted")
def test_a_file_is_fetched_once(server: Server, responses: list[Response], tmp_path: Path) -> None:
    responses[:] = script(Response(200, BODY))
    [file] = store(server, tmp_path).data_files()
    assert file.path.read_bytes() == BODY
    assert file.path.name == "train v1.jsonl"
    assert file.uri == f"{server.url}/data/train%20v1.jsonl?download=1"
    assert store(server, tmp_path).data_files() == [file]
    assert len(server.requests) == 1


@pytest.mark.usefixtures("trusted")
def test_failures_that_pass_are_tried_again(
    server: Server, responses: list[Response], tmp_path: Path
) -> None:
    responses[:] = script(Response(503), Response(200, BODY, cut_after=100), Response(200, BODY))
    waits = Waits()
    [file] = store(server, tmp_path, waits).data_files()
    assert file.path.read_bytes() == BODY
    assert waits == list(WAITS_SECONDS[:2])


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("response", "reason", "told"),
    [
        pytest.param(Response(404), Reason.DATA_NOT_FOUND, "answered 404", id="missing"),
        pytest.param(Response(401), Reason.AUTHENTICATION_FAILED, "answered 401", id="no access"),
        pytest.param(Response(400), Reason.STORAGE_FAILED, "answered 400", id="refused"),
        pytest.param(Response(500), Reason.STORAGE_FAILED, "in 4 tries: 500", id="broken for good"),
        pytest.param(
            Response(200, BODY, cut_after=9), Reason.STORAGE_FAILED, "of 14,000 bytes", id="cut off"
        ),
        pytest.param(Response(200, BODY * 100), Reason.DATA_INVALID, "larger than 1.0 MiB", id="too large"),
        pytest.param(
            Response(200, b"", {"Content-Length": str(1 << 60)}),
            Reason.DATA_INVALID,
            "larger",
            id="claims too much",
        ),
        pytest.param(
            Response(302, b"", {"Location": "http://127.0.0.1:9/x"}),
            Reason.STORAGE_FAILED,
            "which is not https",
            id="out of TLS",
        ),
    ],
)
def test_failures_have_names_and_leave_nothing(
    server: Server, responses: list[Response], tmp_path: Path, response: Response, reason: Reason, told: str
) -> None:
    responses[:] = script(response)
    with pytest.raises(TrainerError) as failed:
        store(server, tmp_path, limit=1 << 20).data_files()
    assert failed.value.reason is reason
    assert told in failed.value.message
    assert files_in(tmp_path) == []


def test_a_certificate_that_is_not_trusted_is_told_at_once(
    server: Server, responses: list[Response], tmp_path: Path
) -> None:
    responses[:] = script(Response(200, BODY))
    waits = Waits()
    with pytest.raises(TrainerError, match="is not trusted: self-signed certificate"):
        store(server, tmp_path, waits).data_files()
    assert waits == []


@pytest.mark.usefixtures("trusted")
def test_a_credential_goes_to_its_address_only(
    server: Server, responses: list[Response], certificate: Path, tmp_path: Path
) -> None:
    with serving(lambda _request: Response(200, BODY), certificate) as other:
        responses[:] = script(Response(302, b"", {"Location": f"{other.url}/elsewhere"}))
        store(server, tmp_path, authorization="Bearer s3cret").data_files()
        assert server.requests[0].headers["authorization"] == "Bearer s3cret"
        assert "authorization" not in other.requests[0].headers
