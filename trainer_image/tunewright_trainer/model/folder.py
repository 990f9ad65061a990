"""Which model a job uses: found and downloaded by prepare, remembered for the job's other pods.

A branch of a hub may move between two pods of a job; what prepare resolved is what all of them load.
"""

from __future__ import annotations

from tunewright_trainer.contract import TrainerConfig
from tunewright_trainer.files import read_json, write_json
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.storage import ModelFolder, open_store

MODEL_FILE = "model.json"


def remember_model(model: ModelFolder, config: TrainerConfig, workspace: Workspace) -> None:
    """Note the model that prepare found in the job's part of the workspace."""
    folder = workspace.job(config.job_uid)
    folder.mkdir(parents=True, exist_ok=True)
    inside = model.path.is_relative_to(workspace.models)
    write_json(
        folder / MODEL_FILE,
        {
            "uri": model.uri,
            "name": model.name,
            "revision": model.revision,
            # Relative: the next pod may see the workspace under another path.
            "downloaded_to": str(model.path.relative_to(workspace.root)) if inside else None,
        },
    )


def noted_revision(config: TrainerConfig, workspace: Workspace) -> str | None:
    """The revision that prepare resolved for this job; None where there is none, or the note is gone."""
    noted = read_json(workspace.job(config.job_uid) / MODEL_FILE)
    revision = noted.get("revision") if isinstance(noted, dict) else None
    return str(revision) if revision is not None else None


def job_model(config: TrainerConfig, locations: Locations) -> ModelFolder:
    """The model that prepare found for this job; no network is used if it was downloaded.

    Raises ModelNotFound if its folder is gone.
    """
    workspace = Workspace.of(config, locations)
    noted = read_json(workspace.job(config.job_uid) / MODEL_FILE)
    if isinstance(noted, dict) and noted.get("downloaded_to"):
        path = workspace.root / str(noted["downloaded_to"])
        if path.is_dir():
            return ModelFolder(path, str(noted["uri"]), str(noted["name"]), noted["revision"])
    store = open_store(config.model.source, locations, workspace, config.job_uid)
    return store.model(config.model.revision, weights=True)
