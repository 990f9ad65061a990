"""Export: takes what training left to its destination, checks it there, and names its digest.

It may be run again at any time: an output that is whole is adopted, one that was cut short is completed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tunewright_trainer.checkpoint.manifest import FileRecord, record, wrong_hashes, wrong_sizes
from tunewright_trainer.console import human_bytes, say
from tunewright_trainer.contract import DataFacts, ExportResult, OutputFacts, Reason, TrainerConfig
from tunewright_trainer.data import prepared
from tunewright_trainer.errors import TrainerError, from_os_error
from tunewright_trainer.export.card import model_card
from tunewright_trainer.export.destination import (
    MANIFEST,
    BaseModelName,
    MadeFrom,
    OutputJob,
    OutputManifest,
    can_adopt,
    clear_leftovers,
    damage,
    publish,
    read_manifest,
    staging,
)
from tunewright_trainer.export.tensors import check_tensors
from tunewright_trainer.files import read_json, write_json
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.model.facts import licence
from tunewright_trainer.model.folder import job_model, noted_revision
from tunewright_trainer.storage import ModelFolder

FINAL_MANIFEST, METRICS, CONFIG, CARD = "manifest.json", "metrics.json", "training_config.json", "README.md"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",
)  # fmt: skip
_FILE_RECORDS = TypeAdapter(list[FileRecord])


def export(config: TrainerConfig, locations: Locations) -> ExportResult:
    """Bring the finished weights to ``config.output.destination``.

    Raises TrainerError: DestinationOccupied, StorageFailed (also if the finished weights are missing or
    damaged), DiskFull, DeadAdapter, NaNLoss.
    """
    destination = config.output.destination.uri
    folder = locations.path(destination)
    workspace = Workspace.of(config, locations)
    data = _data_facts(config, workspace)
    made_from = MadeFrom(data.fingerprint if data else None, noted_revision(config, workspace))
    if can_adopt(config, locations, made_from):
        say(f"{destination} already holds this spec's output from the same data: adopted")
        clear_leftovers(folder, config.job_uid)
        return _result(config, folder, adopted=True)
    final = workspace.final(config.job_uid)
    names = _finished_files(final, config)
    model = job_model(config, locations)
    try:
        with staging(folder, config.job_uid) as stage:
            say(f"writing {len(names)} files and their description to {destination}")
            _fill(stage, final, names, model, config, data)
            publish(stage, folder)
    except OSError as error:
        raise from_os_error(error, f"writing to {destination}") from error
    result = _result(config, folder, adopted=False)
    say(f"{destination} is complete: {human_bytes(result.outputs[0].size_bytes)}, {result.outputs[0].digest}")
    return result


def _finished_files(final: Path, config: TrainerConfig) -> list[str]:
    """Names of the finished weights' files, after checking that they are what training wrote."""
    manifest = read_json(final / FINAL_MANIFEST)
    if not isinstance(manifest, dict):
        raise _unfinished("there is no manifest, so training has not finished")
    if manifest.get("spec_hash") != config.spec_hash:
        raise _unfinished(f"they belong to another spec ({manifest.get('spec_hash')})")
    try:
        files = _FILE_RECORDS.validate_python(manifest.get("files"))
    except ValidationError as error:
        raise _unfinished("their manifest can't be read") from error
    if damaged := wrong_sizes(final, files) or wrong_hashes(final, files):
        raise _unfinished(damaged)
    if outside := [file.path for file in files if ".." in Path(file.path).parts or file.path.startswith("/")]:
        raise _unfinished(f"their manifest names {outside[0]}, which lies elsewhere")
    check_tensors(_weights(final), adapter=config.method.type == "LoRA")
    return [file.path for file in files]


def _fill(
    stage: Path,
    final: Path,
    names: Sequence[str],
    model: ModelFolder,
    config: TrainerConfig,
    data: DataFacts | None,
) -> None:
    """Put the whole output into ``stage``, MANIFEST included, and check it by reading it back."""
    for name in names:
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(final / name, target)
    base = BaseModelName(name=model.name, revision=model.revision, uri=model.uri)
    if config.method.type == "LoRA":
        _name_base_model(stage / ADAPTER_CONFIG, base)
    _copy_tokenizer(stage, model, config)
    write_json(stage / CONFIG, config.model_dump(mode="json"))
    metrics = read_json(stage / METRICS)
    card = model_card(config, base, licence(model.path), metrics if isinstance(metrics, dict) else {}, data)
    (stage / CARD).write_text(card, encoding="utf-8")
    check_tensors(_weights(stage), adapter=config.method.type == "LoRA")
    files = [record(stage, path) for path in sorted(stage.rglob("*")) if path.is_file()]
    manifest = OutputManifest(
        spec_hash=config.spec_hash,
        job=OutputJob(name=config.job_name, namespace=config.job_namespace, uid=config.job_uid),
        base_model=base,
        format=_format(config),
        digest=digest_of(files),
        data_fingerprint=data.fingerprint if data else None,
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
    )
    write_json(stage / MANIFEST, manifest.model_dump())


def digest_of(files: Sequence[FileRecord]) -> str:
    """``sha256:…`` over the lines ``<path> <sha256 of the file>``, sorted by path."""
    lines = sorted(f"{file.path} {file.sha256}\n" for file in files)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _name_base_model(path: Path, base: BaseModelName) -> None:
    """Write the base model's true name into adapter_config.json: servers load the base by it."""
    adapter = read_json(path)
    if not isinstance(adapter, dict):
        raise _unfinished(f"{path.name} is missing or not JSON")
    adapter |= {"base_model_name_or_path": base.name, "revision": base.revision, "inference_mode": True}
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copy_tokenizer(stage: Path, model: ModelFolder, config: TrainerConfig) -> None:
    for name in TOKENIZER_FILES:
        if (model.path / name).is_file():
            shutil.copyfile(model.path / name, stage / name)
    if config.dataset.chat_template is not None:
        # The template that it was trained with is the one to ask it with.
        (stage / "chat_template.jinja").write_text(config.dataset.chat_template, encoding="utf-8")


def _data_facts(config: TrainerConfig, workspace: Workspace) -> DataFacts | None:
    """Facts of the prepared data; None if it has been cleaned away since."""
    if config.prepared_key is None:
        return None
    found = prepared.find(workspace.prepared(config.prepared_key), config.prepared_key)
    return found.data if found else None


def _result(config: TrainerConfig, folder: Path, *, adopted: bool) -> ExportResult:
    """The answer, from the destination as it is read back."""
    destination = config.output.destination.uri
    manifest = read_manifest(folder)
    broken = damage(folder, manifest) if manifest else f"{MANIFEST} can't be read back"
    if manifest is None or broken or digest_of(manifest.files) != manifest.digest:
        raise TrainerError(
            Reason.STORAGE_FAILED,
            f"{destination} does not hold what was written to it: {broken or 'the digest differs'}.",
            "Check the volume, then run the export again.",
        )
    output = OutputFacts(
        destination=destination,
        format=manifest.format,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        uri=destination,
    )
    return ExportResult(outputs=[output], adopted=adopted)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _format(config: TrainerConfig) -> str:
    return "Adapter" if config.method.type == "LoRA" else "Model"


def _unfinished(why: str) -> TrainerError:
    return TrainerError(
        Reason.STORAGE_FAILED,
        f"The finished weights in the workspace can't be exported: {why}.",
        "Look at the workspace's volume; if they are lost, create the job again.",
    )
