"""Data files from https:// addresses: downloaded into the workspace, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from tunewright_trainer.console import Ticker, human_bytes, say
from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError, from_os_error
from tunewright_trainer.storage.base import DataFile, ModelFolder

SIZE_LIMIT_BYTES = 200 << 30
"""A download larger than this is refused; larger data belongs on a claim."""
TIMEOUT_SECONDS = 60.0
WAITS_SECONDS = (1.0, 5.0, 15.0)
"""Waits before the second, third and fourth try of an address that failed in passing."""
_BLOCK_BYTES = 1 << 20


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never out of TLS."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise TrainerError(
                Reason.STORAGE_FAILED,
                f"{req.full_url} redirects to {newurl}, which is not https.",
                "Use the https address of the file itself.",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Passing(Exception):
    """A failure that may pass: worth another try."""


class HttpStore:
    """One ``https://`` file."""

    def __init__(
        self,
        url: str,
        *,
        authorization: str | None,
        downloads: Path,
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._authorization = authorization
        self._downloads = downloads
        self._size_limit_bytes = size_limit_bytes
        self._sleep = sleep

    def model(self, revision: str | None, *, weights: bool) -> ModelFolder:
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"{self._url} can't be a model: a model is a folder of files.",
            "Put the model on a claim (pvc://) or use hf://.",
        )

    def data_files(self) -> list[DataFile]:
        name = unquote(urlsplit(self._url).path).rsplit("/", 1)[-1] or "data"
        folder = self._downloads / hashlib.sha256(self._url.encode()).hexdigest()[:16]
        path = folder / name
        if not path.is_file():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._download(path)
            except OSError as error:
                raise from_os_error(error, f"downloading {self._url}") from error
        return [DataFile(path, self._url)]

    def _download(self, path: Path) -> None:
        for wait_seconds in (*WAITS_SECONDS, None):
            try:
                self._try_download(path)
                return
            except _Passing as error:
                if wait_seconds is None:
                    raise TrainerError(
                        Reason.STORAGE_FAILED,
                        f"{self._url} could not be downloaded in {len(WAITS_SECONDS) + 1} tries: {error}.",
                        "Check that the address can be reached from the cluster.",
                        error=str(error),
                    ) from error
                say(f"{self._url}: {error}; next try in {wait_seconds:.0f} s")
                self._sleep(wait_seconds)

    def _try_download(self, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with self._open() as response, temporary.open("wb") as file:
                self._copy(response, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (HTTPException, TimeoutError, ConnectionError) as error:
            raise _Passing(str(error) or type(error).__name__) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self) -> HTTPResponse:
        request = urllib.request.Request(self._url, headers={"User-Agent": "tunewright"})
        if self._authorization:
            # Unredirected: a credential is for the address it was given for, not for where that points.
            request.add_unredirected_header("Authorization", self._authorization)
        context = ssl.create_default_context()
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _HttpsOnly())
        try:
            return cast(HTTPResponse, opener.open(request, timeout=TIMEOUT_SECONDS))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.reason) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise TrainerError(
                    Reason.STORAGE_FAILED,
                    f"The certificate of {self._url} is not trusted: {error.reason.verify_message}.",
                    "Use an address with a certificate that the trainer image trusts.",
                ) from error
            raise _Passing(str(error.reason)) from error

    def _refused(self, status: int, phrase: str) -> Exception:
        if status in (401, 403):
            return TrainerError(
                Reason.AUTHENTICATION_FAILED,
                f"{self._url} answered {status} {phrase}.",
                "Put an Authorization header's value under the key AUTHORIZATION of the source's secret.",
            )
        if status in (404, 410):
            return TrainerError(
                Reason.DATA_NOT_FOUND,
                f"{self._url} answered {status} {phrase}.",
                "Correct the address in dataset.train or dataset.validation.",
            )
        if status == 429 or status >= 500:
            return _Passing(f"{status} {phrase}")
        return TrainerError(Reason.STORAGE_FAILED, f"{self._url} answered {status} {phrase}.")

    def _copy(self, response: HTTPResponse, file: IO[bytes]) -> None:
        expected = int(response.headers.get("Content-Length") or 0)
        self._check_size(expected)
        free_bytes = shutil.disk_usage(self._downloads).free
        if expected > free_bytes:
            raise TrainerError(
                Reason.DISK_FULL,
                f"{self._url} has {human_bytes(expected)}, the workspace has {human_bytes(free_bytes)} free.",
                "Make the workspace's volume larger.",
            )
        ticker = Ticker(f"downloading {self._url}", expected or None, unit="bytes")
        received = 0
        while block := response.read(_BLOCK_BYTES):
            received += len(block)
            self._check_size(received)
            file.write(block)
            ticker.at(received)
        if expected and received != expected:
            raise _Passing(f"the connection ended after {received:,} of {expected:,} bytes")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._size_limit_bytes:
            limit = human_bytes(self._size_limit_bytes)
            raise TrainerError(
                Reason.DATA_INVALID,
                f"{self._url} is larger than {limit}, the most that is downloaded.",
                "Put the data on a claim and use pvc://.",
            )
