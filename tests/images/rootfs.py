"""Carries out a Dockerfile's steps without Docker: each stage is a folder, each RUN a chroot into it.

Needs root and debootstrap. What Docker isolates beyond the file system (network, cgroups) is not played.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack import bootstrap
from tests.images.dockerfile import Copy, Run, Stage

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES = "/run/build-ca.crt"
SUITE = "bookworm"
STEP_SECONDS = 900

# Mounts and chroots in a mount and pid namespace of its own, so that nothing is left behind. Arguments: root,
# user, "ro" or "rw", number of binds, source and target of each, then env -i's arguments.
_ENTER = """
root=$1 user=$2 mode=$3 binds=$4; shift 4
mount --bind "$root" "$root"
for i in $(seq "$binds"); do mount --bind "$1" "$root/$2"; shift 2; done
mount --bind /etc/hosts "$root/etc/hosts"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
[ "$mode" = rw ] || mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""


def base_root() -> Path:
    """A minimal Debian, made once by debootstrap and kept in the cache folder."""
    target = bootstrap.cache_dir() / f"debootstrap-{SUITE}"
    if not target.exists():
        bootstrap.cache_dir().mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".debootstrap-", dir=bootstrap.cache_dir()))
        try:
            _checked(["debootstrap", "--variant=minbase", SUITE, str(draft)])
            (draft / "etc" / "hosts").touch()
            draft.chmod(0o755)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


class Image:
    """The last stage of a build: a root folder and the settings to start a container with."""

    def __init__(self, root: Path, stage: Stage) -> None:
        self.root = root
        self.stage = stage

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The entrypoint with ``arguments`` (none: the default command), as its user, root read-only."""
        return self.execute([*self.stage.entrypoint, *(arguments or self.stage.command)])

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Another command in the same surroundings."""
        inside = ["/bin/sh", "-c", f'cd "{self.stage.workdir}" && exec "$@"', "sh", *command]
        return _enter(self.root, inside, self.stage.env, user=self.stage.user, read_only=True)

    def added_bytes(self) -> int:
        """What the image adds to its base, unpacked."""
        return _size_bytes(self.root) - _size_bytes(base_root())


def _size_bytes(folder: Path) -> int:
    return int(_checked(["du", "--summarize", "--bytes", str(folder)]).stdout.split()[0])


def build(stages: Sequence[Stage], context: Path, folder: Path) -> Image:
    """Carries out ``stages`` into folders under ``folder``; raises AssertionError when a step fails."""
    folder.mkdir()
    roots: dict[str, Path] = {}
    for stage in stages:
        root = roots[stage.name] = folder / stage.name
        _checked(["cp", "--archive", str(roots.get(stage.base) or base_root()), str(root)])
        for step in stage.steps:
            if isinstance(step, Run):
                _run(root, step)
            else:
                _copy(root, step, roots[step.stage] if step.stage else context, link=bool(step.stage))
    return Image(roots[stages[-1].name], stages[-1])


def _run(root: Path, step: Run) -> None:
    binds = []
    for target in step.cache_folders:
        source = bootstrap.cache_dir() / Path(target).name
        source.mkdir(parents=True, exist_ok=True)
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        binds.append((str(source), target))
    env = {
        "PATH": PATH,
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
        **_network_settings(),
        **step.env,
    }
    if certificates := _host_certificates():
        (root / CERTIFICATES.lstrip("/")).touch()
        binds.append((certificates, CERTIFICATES))
    done = _enter(root, ["/bin/sh", "-c", step.command], env, binds=binds)
    assert done.returncode == 0, f"RUN {step.command}\n{(done.stdout + done.stderr)[-4000:]}"


def _host_certificates() -> str | None:
    """A machine that reaches registries through a proxy may have an authority of its own: steps trust it."""
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _network_settings() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
    settings = {name: os.environ[name] for name in names if name in os.environ}
    if _host_certificates():
        settings |= {"PIP_CERT": CERTIFICATES, "SSL_CERT_FILE": CERTIFICATES}
    return settings


def _copy(root: Path, step: Copy, source_root: Path, link: bool) -> None:
    """COPY: files go into a target that ends with a slash, a folder's contents go to the target."""
    target = root / step.target.lstrip("/")
    for name in step.sources:
        source = source_root / name.lstrip("/")
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            how = ["--link"] if link else []
            _checked(["cp", "--archive", *how, f"{source}/.", str(target)])
        else:
            file = target / source.name if step.target.endswith("/") else target
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, file)


def _enter(
    root: Path,
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    binds: Sequence[tuple[str, str]] = (),
    user: str = "0:0",
    read_only: bool = False,
) -> subprocess.CompletedProcess[str]:
    mounts = [part for bind in binds for part in bind]
    settings = [f"{name}={value}" for name, value in env.items()]
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh"]
        + [str(root), user, "ro" if read_only else "rw", str(len(binds)), *mounts, *settings, *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=STEP_SECONDS,
    )


def _checked(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{(done.stdout + done.stderr)[-2000:]}"
    return done
