"""Sources on a Hugging Face hub or a mirror of it (``HF_ENDPOINT``), kept as plain folders in the workspace.

A model lies in ``models/<org>--<name>/<commit>/``: real files without links, since not every claim can hold
links, in a folder that is renamed into place only when it is whole.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright_trainer.console import LINE_EVERY_SECONDS, human_bytes, say
from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError, from_os_error, last_line
from tunewright_trainer.files import publish_folder
from tunewright_trainer.locations import Uri
from tunewright_trainer.storage.base import (
    DATA_SUFFIXES,
    DESCRIPTION_FILES,
    WEIGHT_FILES,
    DataFile,
    ModelFolder,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOOK_UP_TIMEOUT_SECONDS = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubStore:
    """``hf://org/name[@revision][/path]``; ``hf://datasets/org/name…`` is understood too."""

    def __init__(self, uri: Uri, *, token: str | None, models: Path, downloads: Path, unique: str) -> None:
        self._uri = uri
        self._repository, self._revision, self._path = _split(uri)
        self._token = token
        self._models = models
        self._downloads = downloads
        self._unique = unique

    def model(self, revision: str | None, *, weights: bool) -> ModelFolder:
        revision = revision or self._revision
        home = self._models / self._repository.replace("/", "--")
        if revision and _COMMIT.fullmatch(revision) and (home / revision).is_dir():
            return self._folder(home / revision, revision)  # whole and immutable: the hub isn't needed
        with self._named_errors(Reason.MODEL_NOT_FOUND, "model"):
            commit, names = self._look_up("model", revision)
            final = home / commit
            if final.is_dir():
                return self._folder(final, commit)
            partial = home / f".{commit}.{self._unique}.partial"
            wanted = self._wanted(names, DESCRIPTION_FILES + (WEIGHT_FILES if weights else ()))
            self._download("model", commit, wanted, partial)
            if not weights:
                return self._folder(partial, commit, complete=False)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            if not publish_folder(partial, final):
                shutil.rmtree(partial, ignore_errors=True)
        return self._folder(final, commit)

    def data_files(self) -> list[DataFile]:
        with self._named_errors(Reason.DATA_NOT_FOUND, "dataset"):
            commit, names = self._look_up("dataset", self._revision)
            wanted = sorted(name for name in names if self._names_data(name))
            if not wanted:
                raise TrainerError(
                    Reason.DATA_NOT_FOUND,
                    f"{self._uri} matches no data file; the repository holds {', '.join(sorted(names)[:8])}.",
                    f"Name a file or pattern that ends in one of {', '.join(DATA_SUFFIXES)}.",
                )
            folder = self._downloads / self._repository.replace("/", "--") / commit
            self._download("dataset", commit, wanted, folder)
        prefix = f"hf://{self._uri.host}/{self._repository.rsplit('/', 1)[-1]}"
        return [DataFile(folder / name, f"{prefix}/{name}") for name in wanted]

    def _folder(self, path: Path, commit: str, *, complete: bool = True) -> ModelFolder:
        inner = path / self._path if self._path else path
        return ModelFolder(inner, str(self._uri), self._repository, revision=commit, complete=complete)

    def _wanted(self, names: list[str], patterns: tuple[str, ...]) -> list[str]:
        prefix = f"{self._path}/" if self._path else ""
        # fnmatch's * also matches "/": what lies deeper (onnx/, original/) is not wanted.
        return [
            name for name in names for pattern in patterns
            if fnmatch(name, prefix + pattern) and name.count("/") == (prefix + pattern).count("/")
        ]  # fmt: skip

    def _names_data(self, name: str) -> bool:
        if not name.endswith(DATA_SUFFIXES):
            return False
        if not self._path:
            return True
        return fnmatch(name, self._path) or name.startswith(f"{self._path.rstrip('/')}/")

    def _api(self) -> HfApi:
        # The library keeps logs and caches under HF_HOME, which defaults to a home that may be read-only.
        os.environ.setdefault("HF_HOME", str(self._downloads / ".hub"))
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from huggingface_hub import HfApi

        # False, not None: a token that happens to lie in the image or home is never sent.
        return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=self._token or False)

    def _look_up(self, kind: str, revision: str | None) -> tuple[str, list[str]]:
        """Commit and file names of a revision (None: the default branch)."""
        api = self._api()
        look_up = api.model_info if kind == "model" else api.dataset_info
        info = look_up(self._repository, revision=revision, timeout=LOOK_UP_TIMEOUT_SECONDS)
        if info.sha is None:
            raise TrainerError(Reason.STORAGE_FAILED, f"The hub names no commit for {self._uri}.")
        return info.sha, [file.rfilename for file in info.siblings or []]

    def _download(self, kind: str, commit: str, names: list[str], folder: Path) -> None:
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return
        say(f"downloading {len(missing)} files of {self._repository} at {commit[:12]}")
        with _folder_growth_said(folder, self._repository):
            self._api().snapshot_download(
                self._repository, repo_type=kind, revision=commit, local_dir=folder, allow_patterns=missing
            )
        # snapshot_download returns an incomplete local_dir without a word when the hub goes away midway.
        still_missing = [name for name in names if not (folder / name).is_file()]
        if still_missing:
            raise TrainerError(
                Reason.STORAGE_FAILED,
                f"{len(still_missing)} files of {self._uri} did not arrive, {still_missing[0]} among them.",
                "Check that the hub or its mirror can be reached from the cluster.",
            )

    @contextmanager
    def _named_errors(self, not_found: Reason, what: str) -> Iterator[None]:
        import httpx2
        from huggingface_hub import errors

        try:
            yield
        except errors.HFValidationError as error:
            raise TrainerError(
                Reason.CONFIG_INVALID, f"{self._uri} is not a repository's name: {error}."
            ) from error
        except errors.GatedRepoError as error:
            raise self._access_refused("is gated", error) from error
        except errors.RevisionNotFoundError as error:
            raise TrainerError(
                not_found, f"{self._uri} has no such revision.", "Name a branch, tag or commit that exists."
            ) from error
        except errors.RepositoryNotFoundError as error:
            known = "with this token" if self._token else "without a token"
            raise TrainerError(
                not_found,
                f"The hub knows no {what} {self._repository} {known}.",
                "Correct the name; if it is private, set secretRef to a secret with the key HF_TOKEN.",
                error=last_line(error),
            ) from error
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise self._access_refused("refused the token", error) from error
            raise self._unreachable(error) from error
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except OSError as error:
            raise from_os_error(error, f"downloading {self._uri}") from error

    def _access_refused(self, how: str, error: Exception) -> TrainerError:
        return TrainerError(
            Reason.AUTHENTICATION_FAILED,
            f"{self._uri}: the hub {how}." if how.startswith("refused") else f"{self._uri} {how}.",
            "Ask for access on the model's page and set secretRef to a secret with the key HF_TOKEN.",
            error=last_line(error),
        )

    def _unreachable(self, error: Exception) -> TrainerError:
        endpoint = os.environ.get("HF_ENDPOINT", "the hub")
        return TrainerError(
            Reason.STORAGE_FAILED,
            f"{self._uri} could not be read from {endpoint}: {last_line(error)}.",
            "Check that the hub can be reached from the cluster, set HF_ENDPOINT to a mirror, or use pvc://.",
            error=last_line(error),
        )


def _split(uri: Uri) -> tuple[str, str | None, str]:
    """Repository, revision and path of ``hf://[datasets/|models/]org/name[@revision][/path]``."""
    parts = [uri.host, *uri.path.split("/")] if uri.path else [uri.host]
    if parts[0] in ("datasets", "models"):
        parts = parts[1:]
    if len(parts) < 2 or not all(parts[:2]):
        raise TrainerError(
            Reason.CONFIG_INVALID, f"{uri} names no repository.", "Write hf://org/name, as on the hub."
        )
    name, _, revision = parts[1].partition("@")
    return f"{parts[0]}/{name}", revision or None, "/".join(parts[2:])


@contextmanager
def _folder_growth_said(folder: Path, label: str, say: Callable[[str], None] = say) -> Iterator[None]:
    """Says every few seconds how large ``folder`` has become, while the block runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LINE_EVERY_SECONDS):
            size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            say(f"downloading {label}: {human_bytes(size_bytes)} so far")

    thread = threading.Thread(target=watch, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
