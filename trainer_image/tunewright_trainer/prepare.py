"""Prepare: looks at model and data before any worker exists, and leaves packed tokens in the workspace.

No torch is imported here: a prepare pod starts in a second and fits into little memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from tunewright_trainer.console import human_bytes, say
from tunewright_trainer.contract import DatasetSource, Facts, ModelFacts, Reason, TrainerConfig
from tunewright_trainer.data import prepared
from tunewright_trainer.data.documents import no_chat_template
from tunewright_trainer.data.formats import check_columns
from tunewright_trainer.data.key import LocatedSource, fingerprint, hash_files, prepared_key
from tunewright_trainer.data.prepared import PreparedManifest
from tunewright_trainer.data.report import summary
from tunewright_trainer.data.tokenizer import Tokenizer
from tunewright_trainer.errors import TrainerError, from_os_error
from tunewright_trainer.export.destination import MadeFrom, can_adopt, standing_output
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.model.facts import mixes_packed_documents, model_facts, read_config
from tunewright_trainer.model.folder import remember_model
from tunewright_trainer.storage import open_store

CHECKPOINT_BYTES_PER_TRAINABLE = 16
"""Weights, gradients' master copy and two optimizer moments, in fp32: what a checkpoint holds at most."""


def prepare(config: TrainerConfig, locations: Locations) -> Facts:
    """Read, check and prepare everything a job needs; returns what the planner has to know.

    Raises TrainerError: ConfigInvalid, ModelNotFound, ModelInvalid, DataNotFound, DataInvalid,
    AuthenticationFailed, StorageFailed, DiskFull or DestinationOccupied.
    """
    workspace = _usable_workspace(config, locations)
    standing_output(config, locations)  # another spec's output is told before anything is read
    store = open_store(config.model.source, locations, workspace, config.job_uid)
    model = store.model(config.model.revision, weights=False)
    model_config = read_config(model)
    # A mistake in the data is told before gigabytes of weights are fetched, one in the method before the
    # data is read: so the facts come first where the weights are there already.
    facts = model_facts(model, model_config, config.method) if model.complete else None
    tokenizer = Tokenizer(model, config.dataset.chat_template)
    if config.task == "ChatCompletion" and tokenizer.template is None:
        raise no_chat_template("Task ChatCompletion ")
    manifest = _prepare_data(config, locations, workspace, tokenizer, model_config)
    adoptable = can_adopt(config, locations, MadeFrom(manifest.data.fingerprint, model.revision))
    if facts is None:
        model = store.model(config.model.revision, weights=True)
        facts = model_facts(model, model_config, config.method)
    remember_model(model, config, workspace)
    _say_result(manifest, facts, workspace)
    return Facts(prepared_key=manifest.prepared_key, model=facts, data=manifest.data, adoptable=adoptable)


def _usable_workspace(config: TrainerConfig, locations: Locations) -> Workspace:
    workspace = Workspace.of(config, locations)
    try:
        workspace.job(config.job_uid).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, f"writing to the workspace {config.workspace.uri}") from error
    return workspace


def _prepare_data(
    config: TrainerConfig,
    locations: Locations,
    workspace: Workspace,
    tokenizer: Tokenizer,
    model_config: dict[str, object],
) -> PreparedManifest:
    warnings: list[str] = []
    sequence_length = _sequence_length(config, model_config, warnings)
    packed = _packed(config, model_config, warnings)
    train = _locate(config.dataset.train, config, locations, workspace)
    validation = _locate(config.dataset.validation, config, locations, workspace)
    data_fingerprint = fingerprint(
        config, train, validation, tokenizer.fingerprint, sequence_length=sequence_length, packed=packed
    )
    key = prepared_key(data_fingerprint)
    folder = workspace.prepared(key)
    found = prepared.find(folder, key)
    if found is not None:
        say(f"prepared data {key} is there already and is used again")
        return found
    return prepared.build(
        folder, key, config, tokenizer, train, validation,
        fingerprint=data_fingerprint, sequence_length=sequence_length, packed=packed, warnings=warnings,
    )  # fmt: skip


def _locate(
    sources: Sequence[DatasetSource], config: TrainerConfig, locations: Locations, workspace: Workspace
) -> list[LocatedSource]:
    located = []
    for source in sources:
        check_columns(source)
        store = open_store(source.source, locations, workspace, config.job_uid)
        located.append(hash_files(source, store.data_files()))
    return located


def _sequence_length(config: TrainerConfig, model_config: dict[str, object], warnings: list[str]) -> int:
    wanted = config.dataset.max_sequence_length
    limit = model_config.get("max_position_embeddings")
    if isinstance(limit, int) and 0 < limit < wanted:
        warnings.append(f"maxSequenceLength is {wanted:,}, but the model takes {limit:,} tokens: used that.")
        return limit
    return wanted


def _packed(config: TrainerConfig, model_config: dict[str, object], warnings: list[str]) -> bool:
    packing = config.dataset.packing
    if packing == "Never" or not mixes_packed_documents(model_config):
        return packing != "Never"
    if packing == "Always":
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"A {model_config.get('model_type')} model carries state from one packed document into the next.",
            "Set dataset.packing to Auto or Never.",
        )
    warnings.append("Packing is off: this model would carry state from one packed document into the next.")
    return False


def _say_result(manifest: PreparedManifest, facts: ModelFacts, workspace: Workspace) -> None:
    say(
        f"{facts.architecture} with {facts.parameters:,} parameters, {facts.trainable_parameters:,} trained "
        f"({facts.trainable_parameters / facts.parameters:.2%})"
    )
    say(summary(manifest.data))
    example = prepared.example_of(workspace.prepared(manifest.prepared_key))
    say(f"--- one example; what carries loss stands between « and » ---\n{example}\n---")
    free_bytes = shutil.disk_usage(workspace.root).free
    checkpoint_bytes = CHECKPOINT_BYTES_PER_TRAINABLE * facts.trainable_parameters
    if free_bytes < 2 * checkpoint_bytes:
        say(
            f"warning: the workspace has {human_bytes(free_bytes)} free; a checkpoint may take "
            f"{human_bytes(checkpoint_bytes)}"
        )
