"""From a TrainerConfig to the objects that train it: arguments, model, tokenizer, adapter."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig

from tunewright_trainer import ds_config
from tunewright_trainer.contract import LoraConfig, Reason, TrainerConfig, TrainingConfig
from tunewright_trainer.errors import TrainerError, last_line

ENV_COLLECTIVE_TIMEOUT_SECONDS = "TUNEWRIGHT_COLLECTIVE_TIMEOUT_SECONDS"
"""How long a rank waits for its peers in one collective before it takes them for lost."""
DEFAULT_COLLECTIVE_TIMEOUT_SECONDS = 1800.0
"""Long enough for one rank to load a model over a slow volume while the others wait."""

DTYPES = {"BF16": torch.bfloat16, "FP16": torch.float16, "FP32": torch.float32}
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
_SCHEDULES = {"Cosine": "cosine", "Linear": "linear", "Constant": "constant_with_warmup"}


def training(config: TrainerConfig) -> TrainingConfig:
    """The training plan. Raises ConfigInvalid if there is none yet."""
    if config.training is None:
        raise TrainerError(Reason.CONFIG_INVALID, "The configuration has no training plan yet.")
    return config.training


def collective_timeout() -> timedelta:
    seconds = os.environ.get(ENV_COLLECTIVE_TIMEOUT_SECONDS)
    return timedelta(seconds=float(seconds) if seconds else DEFAULT_COLLECTIVE_TIMEOUT_SECONDS)


def arguments(config: TrainerConfig, world_size: int, folder: Path) -> SFTConfig:
    """Trainer arguments. Saving, evaluating and reporting are our callbacks', so all of it is off here.

    Creating them also arms ZeRO-3's sharded loading of models.
    """
    plan = training(config)
    on_gpu = config.compute.device == "cuda"
    return SFTConfig(
        output_dir=str(folder),
        deepspeed=ds_config.render(config, world_size),
        use_cpu=not on_gpu,
        ddp_backend=BACKENDS[config.compute.device],
        ddp_timeout=int(collective_timeout().total_seconds()),
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.gradient_accumulation,
        max_steps=plan.max_steps or -1,
        num_train_epochs=plan.epochs or 1,
        **_optimization(plan, fused=on_gpu),
        bf16=plan.precision == "BF16",
        fp16=plan.precision == "FP16",
        gradient_checkpointing=plan.activation_checkpointing,
        seed=plan.seed,
        data_seed=plan.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="all",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        log_level="warning",
        # Rows come tokenised, packed and cut from the prepare step.
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        packing=False,
        padding_free=False,
        max_length=None,
        shuffle_dataset=False,
        dataloader_pin_memory=on_gpu,
    )


def _optimization(plan: TrainingConfig, *, fused: bool) -> dict[str, Any]:
    return {
        "optim": "adamw_torch_fused" if fused else "adamw_torch",
        "learning_rate": plan.learning_rate,
        "weight_decay": plan.optimizer.weight_decay,
        "adam_beta1": plan.optimizer.beta1,
        "adam_beta2": plan.optimizer.beta2,
        "adam_epsilon": plan.optimizer.epsilon,
        "max_grad_norm": plan.max_grad_norm,
        "lr_scheduler_type": _SCHEDULES[plan.schedule.type],
        # A number below 1 is a share of all steps.
        "warmup_steps": plan.schedule.warmup_ratio,
        "average_tokens_across_devices": True,
    }


def model(config: TrainerConfig, folder: Path) -> PreTrainedModel:
    """The base model in the training precision, from safetensors only.

    Raises ModelInvalid if it can't be loaded or if weights are missing: transformers would fill them
    with random numbers and train on.
    """
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[training(config).precision],
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"The model {config.model.source.uri} can't be loaded.",
            "Check that the folder holds config.json and safetensors files of a supported architecture.",
            error=last_line(error),
        ) from error
    base, info = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    if missing := sorted(info["missing_keys"]):
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"The model {config.model.source.uri} lacks {len(missing)} weights, for example {missing[0]}.",
            "Copy or download the model again; one of its safetensors files is missing or of another model.",
        )
    base.config.use_cache = False
    return base


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Training reads token ids only; TRL wants it for its padding token."""
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return cast(PreTrainedTokenizerBase, loaded)


def adapter(config: TrainerConfig) -> PeftLoraConfig | None:
    """peft's configuration of the adapter; None for a full fine-tune."""
    if config.method.type == "Full":
        return None
    lora = config.method.lora or LoraConfig()
    names = lora.target_modules
    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft says int and only ever divides it
        lora_dropout=lora.dropout,
        target_modules="all-linear" if names == ["all-linear"] else list(names),
        bias="none",
    )
