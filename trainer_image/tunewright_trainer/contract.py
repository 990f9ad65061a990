"""The contract between operator and trainer: everything that crosses a pod's border, in one place.

Only pydantic is imported here, so that the operator can share these models without torch.

The operator writes a :class:`TrainerConfig` as JSON into a ConfigMap; the trainer's three commands
(``prepare``, ``train``, ``export``) read it from the file named by ``TUNEWRIGHT_CONFIG``. Each command
answers with one JSON document in its termination message: :class:`Facts`, :class:`TrainResult`,
:class:`ExportResult`, or :class:`Failure`. While training, rank 0 posts :class:`Progress` over HTTPS.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

CONTRACT_VERSION = 1

# ---------------------------------------------------------------------------------------------------
# Environment variables and files. Values that are paths are rewritten where pods run as processes, so
# paths travel by environment only and never inside TrainerConfig.
ENV_CONFIG = "TUNEWRIGHT_CONFIG"
"""Path of the TrainerConfig JSON file."""
ENV_MOUNTS = "TUNEWRIGHT_MOUNTS"
"""JSON object: ``"pvc/<claim>" | "secret/<name>" | "configmap/<name>"`` to the path it is mounted at."""
ENV_SCRATCH = "TUNEWRIGHT_SCRATCH"
"""A writable folder that goes with the pod."""
ENV_TERMINATION_LOG = "TUNEWRIGHT_TERMINATION_LOG"
"""Path of the termination message file."""
ENV_ATTEMPT = "TUNEWRIGHT_ATTEMPT"
"""Number of the attempt, from 1."""
ENV_GRACE_SECONDS = "TUNEWRIGHT_GRACE_SECONDS"
"""The pod's terminationGracePeriodSeconds: a save on SIGTERM must end well before."""
ENV_METRICS_ADDRESS = "TUNEWRIGHT_METRICS_ADDRESS"
"""``host:port`` where rank 0 serves Prometheus metrics; empty or unset: not served."""
# Kubeflow's progress contract (KEP-2779), so that a stock Hugging Face Trainer reports too.
ENV_PROGRESS_URL = "KUBEFLOW_TRAINER_SERVER_URL"
ENV_PROGRESS_CA = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
ENV_PROGRESS_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"

TERMINATION_MESSAGE_LIMIT_BYTES = 4096
"""kubelet cuts a termination message here."""
FACTS_LIMIT_BYTES = 3072
"""Facts are kept under this, so that a longer message can't cut them."""

LONGEST_ESTIMATE_SECONDS = 315_360_000
"""Ten years: no estimate is longer, so that a date can be made of it."""

Figure = Annotated[int, Field(ge=0, le=2**53)]
"""A figure from a pod, which runs code of users. Up to 2^53: readers that count in doubles keep it exact."""


class ExitCode(IntEnum):
    """What a trainer container's exit means to the operator.

    64 to 78 follow sysexits.h: the user has to change something, so a restart would not help.
    80 and above are ours. 128 + n is death by signal n.
    """

    OK = 0
    CONFIG_INVALID = 64
    DATA_INVALID = 65
    MODEL_INVALID = 66
    INTERNAL_ERROR = 70
    STORAGE_ERROR = 74
    STOPPED_FOR_PEER = 75
    """Saved and stopped because another pod of the gang got SIGTERM."""
    AUTHENTICATION_FAILED = 77
    NAN_LOSS = 80
    DEAD_ADAPTER = 81
    STALLED = 82
    RANK_LOST = 83
    """A victim: this rank failed because a peer went away."""
    OUT_OF_MEMORY = 90
    KILLED = 137
    TERMINATED = 143
    """Got SIGTERM itself; a checkpoint was saved if the gang could agree on one."""


class Reason(StrEnum):
    """Named reasons that the trainer itself finds. The operator adds those only it can see."""

    CONFIG_INVALID = "ConfigInvalid"
    DATA_INVALID = "DataInvalid"
    DATA_NOT_FOUND = "DataNotFound"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    STORAGE_FAILED = "StorageFailed"
    DISK_FULL = "DiskFull"
    DESTINATION_OCCUPIED = "DestinationOccupied"
    OUT_OF_MEMORY = "OutOfMemory"
    NAN_LOSS = "NaNLoss"
    DEAD_ADAPTER = "DeadAdapter"
    STALLED = "ProgressStalled"
    RANK_LOST = "RankLost"
    RANK_FAILED = "RankFailed"
    STOPPED_FOR_PEER = "StoppedForPeer"
    PREEMPTED = "Preempted"
    INTERNAL_ERROR = "InternalError"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------------
# TrainerConfig: what to do. snake_case throughout; the operator translates from the camelCase spec.
class Source(_Model):
    """A place to read from: ``hf://org/name[@revision][/path]``, ``pvc://claim/path``, ``https://…``,
    ``configmap://name/key`` (a configMapRef of the spec) or ``file:///…`` (local runs only)."""

    uri: str
    secret: str | None = None
    """Name of the mounted secret with this source's credentials."""


class ModelConfig(_Model):
    source: Source
    revision: str | None = None


class DatasetSource(_Model):
    source: Source
    format: Literal["Auto", "Messages", "PromptCompletion", "Text"] = "Auto"
    columns: dict[str, str] = {}
    """Our column name (``messages``, ``prompt``, ``completion``, ``text``) to theirs."""
    max_rows: int | None = None
    sha256: str | None = None


class DatasetConfig(_Model):
    train: list[DatasetSource]
    validation: list[DatasetSource] = []
    validation_fraction: float | None = None
    split_seed: int = 42
    """Seed of the split by validation_fraction."""
    max_sequence_length: int = 2048
    packing: Literal["Auto", "Always", "Never"] = "Auto"
    loss_on: Literal["Auto", "Assistant", "Completion", "All"] = "Auto"
    chat_template: str | None = None


class LoraConfig(_Model):
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: list[str] = ["all-linear"]


class MethodConfig(_Model):
    type: Literal["LoRA", "Full"] = "LoRA"
    lora: LoraConfig | None = None
    """Set exactly when type is LoRA."""


class ScheduleConfig(_Model):
    type: Literal["Cosine", "Linear", "Constant"] = "Cosine"
    warmup_ratio: float = 0.03


class OptimizerConfig(_Model):
    type: Literal["AdamW"] = "AdamW"
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class EvaluationConfig(_Model):
    every_steps: int | None = None
    every_epochs: int | None = 1


class TrainingConfig(_Model):
    epochs: int | None = None
    max_steps: int | None = None
    """Exactly one of epochs and max_steps is set."""
    learning_rate: float
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    global_batch: int
    micro_batch: int
    """Rows per rank and forward pass; global_batch = micro_batch x accumulation x world size."""
    gradient_accumulation: int
    precision: Literal["BF16", "FP16", "FP32"]
    activation_checkpointing: bool = False
    max_grad_norm: float = 1.0
    seed: int = 42
    evaluation: EvaluationConfig = EvaluationConfig()


class DeepSpeedConfig(_Model):
    zero_stage: Literal[0, 1, 2, 3] = 2
    raw: dict[str, Any] = {}
    """Raw DeepSpeed JSON of the user, merged last; contradictions with typed fields were refused."""


class ComputeConfig(_Model):
    nodes: int = 1
    processes_per_node: int = 1
    device: Literal["cuda", "cpu"] = "cuda"


class CheckpointConfig(_Model):
    every_steps: int | None = 200
    every_minutes: float | None = 15
    keep: int = 3


class OutputConfig(_Model):
    destination: Source
    formats: list[Literal["Adapter"]] = ["Adapter"]


class TrainerConfig(_Model):
    """One job as the trainer sees it. ``training`` and ``deepspeed`` are None for ``prepare``, which
    runs before the plan exists."""

    contract_version: Literal[1] = 1
    job_name: str
    job_namespace: str
    job_uid: str
    spec_hash: str
    """Hash of what affects the result; written into the output's manifest."""
    task: Literal["ChatCompletion", "TextGeneration"] = "ChatCompletion"
    model: ModelConfig
    dataset: DatasetConfig
    method: MethodConfig
    training: TrainingConfig | None = None
    deepspeed: DeepSpeedConfig | None = None
    compute: ComputeConfig = ComputeConfig()
    workspace: Source
    """``pvc://claim/path``: prepared data, model cache, checkpoints, final adapter before export."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    output: OutputConfig
    prepared_key: str | None = None
    """Key of the prepared shards (from Facts); None for ``prepare``."""


# ---------------------------------------------------------------------------------------------------
# Answers: one JSON document in the termination message. ``kind`` tells them apart.
class ModelFacts(_Model):
    """What the planner needs to know of a model, read from config.json and safetensors headers."""

    architecture: str
    parameters: Figure
    trainable_parameters: Figure
    hidden_size: Figure
    layers: Figure
    attention_heads: Figure
    key_value_heads: Figure
    intermediate_size: Figure
    vocabulary_size: Figure
    max_position_embeddings: Figure
    tied_embeddings: bool
    dtype: str
    revision: str | None = None
    """Resolved commit of an hf:// source."""
    size_bytes: Figure
    licence: str | None = None


class DataFacts(_Model):
    rows: Figure
    validation_rows: Figure
    tokens: Figure
    """Tokens of all training sequences, padding not counted."""
    loss_tokens: Figure
    """Tokens that carry loss (not masked)."""
    truncated_rows: Figure
    sequences: Figure
    """Rows the ranks will read per epoch: packed sequences, or rows if packing is off."""
    sequence_length: Figure
    """Longest sequence in tokens."""
    packed: bool
    format: str
    fingerprint: str
    """sha256 over data, tokenizer, template and settings."""
    warnings: list[str] = []


class Facts(_Model):
    """Answer of ``prepare``; at most FACTS_LIMIT_BYTES as JSON."""

    kind: Literal["facts"] = "facts"
    prepared_key: str
    model: ModelFacts
    data: DataFacts
    adoptable: bool = False
    """The destination already holds this spec's output, whole: export alone would adopt it."""


class TrainResult(_Model):
    """Answer of ``train`` from global rank 0; other ranks answer with ``rank`` and the step only."""

    kind: Literal["result"] = "result"
    rank: Figure
    world_size: Figure
    step: Figure
    total_steps: Figure
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    trainable_parameters: Figure | None = None
    total_parameters: Figure | None = None
    tokens: Figure | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: Figure | None = None
    resumed_from_step: Figure | None = None
    adapter: str | None = None
    """URI of the finished adapter in the workspace."""


class OutputFacts(_Model):
    destination: str
    format: str
    digest: str
    """``sha256:…`` over the manifest of files."""
    size_bytes: Figure
    uri: str


class ExportResult(_Model):
    """Answer of ``export``."""

    kind: Literal["export"] = "export"
    outputs: list[OutputFacts]
    adopted: bool = False
    """True when the same spec's output stood there already."""


class Failure(_Model):
    """Answer of any command that failed: what happened, to what, and what to do about it."""

    kind: Literal["failure"] = "failure"
    reason: Reason
    message: str
    """One sentence for a person: what happened, to which object, the figure that shows it."""
    advice: str | None = None
    """What to do about it."""
    rank: Figure | None = None
    step: Figure | None = None
    last_checkpoint_step: Figure | None = None
    error: str | None = None
    """Last line of the underlying error."""


Answer = Annotated[Facts | TrainResult | ExportResult | Failure, Field(discriminator="kind")]
ANSWER: TypeAdapter[Facts | TrainResult | ExportResult | Failure] = TypeAdapter(Answer)


# ---------------------------------------------------------------------------------------------------
# Progress: Kubeflow's fields (KEP-2779) plus ours, posted by rank 0.
class ProgressMetric(BaseModel):
    name: str = Field(max_length=64)
    value: str = Field(max_length=64)


class TunewrightProgress(BaseModel):
    """Our own part of a progress post. All optional: a stock client sends none of it."""

    model_config = ConfigDict(extra="ignore")

    step: Figure | None = None
    total_steps: Figure | None = None
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    last_checkpoint_step: Figure | None = None
    resumed_from_step: Figure | None = None
    peak_memory_bytes: Figure | None = None
    attempt: Figure | None = None


class TrainerStatus(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    progress_percentage: int | None = Field(default=None, ge=0, le=100, alias="progressPercentage")
    estimated_remaining_seconds: int | None = Field(
        default=None, ge=0, le=LONGEST_ESTIMATE_SECONDS, alias="estimatedRemainingSeconds"
    )
    metrics: list[ProgressMetric] = Field(default=[], max_length=256)
    last_updated_time: str | None = Field(default=None, alias="lastUpdatedTime")
    tunewright: TunewrightProgress | None = None


class ProgressPost(BaseModel):
    """Body of ``POST …/trainjobs/{name}/status``: ``{"trainerStatus": {…}}``."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    trainer_status: TrainerStatus = Field(alias="trainerStatus")
