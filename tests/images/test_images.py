"""Both images, built by their Dockerfiles' own steps in a debootstrap root and started as their user."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack import bootstrap
from tests.images.dockerfile import parse
from tests.images.rootfs import Image, build

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("debootstrap"), reason="needs root and debootstrap"
    ),
]
takes_minutes = pytest.mark.image


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    """A folder beside the caches: stages are linked into each other, and they are large."""
    bootstrap.cache_dir().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".images-", dir=bootstrap.cache_dir()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def operator(workshop: Path) -> Image:
    return build(parse(ROOT / "operator" / "Dockerfile"), ROOT, workshop / "operator")


@pytest.fixture(scope="module")
def trainer(workshop: Path) -> Image:
    return build(parse(ROOT / "trainer_image" / "Dockerfile"), ROOT, workshop / "trainer")


def python(image: Image, program: str) -> str:
    """Output of ``program`` in the image; fails the test with what it said if it fails."""
    done = image.execute(["python", "-c", program])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_size(image: Image, folder: str) -> None:
    """The figure in the Dockerfile's head is right to a tenth."""
    claim = re.search(r"[Aa]dds about ([\d,]+) MB", (ROOT / folder / "Dockerfile").read_text())
    assert claim is not None
    assert image.added_bytes() / 1e6 == pytest.approx(int(claim[1].replace(",", "")), rel=0.1)


def test_operator_starts_as_its_user(operator: Image) -> None:
    done = operator.start("--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert python(operator, "import os; print(os.getuid(), os.getgid())") == "65532 65532"


def test_operator_without_a_cluster_says_so(operator: Image) -> None:
    done = operator.start()
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "kubeconfig" in (done.stdout + done.stderr).lower()


def test_operator_holds_the_contract_and_no_more_of_the_trainer(operator: Image) -> None:
    program = "import tunewright.core.names, tunewright_trainer.contract, importlib.util as u; "
    program += "print([n for n in ('torch', 'pip', 'tunewright_trainer.errors') if u.find_spec(n)])"
    assert python(operator, program) == "[]"


def test_operator_is_as_small_as_its_dockerfile_says(operator: Image) -> None:
    assert_size(operator, "operator")


@takes_minutes
def test_trainer_starts_as_its_user(trainer: Image) -> None:
    done = trainer.start("--help")
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("prepare", "train", "export"))
    assert python(trainer, "import os; print(os.getuid(), os.getgid())") == "65532 65532"


@takes_minutes
def test_trainer_trains_two_ranks_without_a_compiler(trainer: Image) -> None:
    """DeepSpeed's operators come from the image: nothing is compiled, and nothing could be."""
    assert trainer.execute(["sh", "-c", "command -v g++ c++ cc gcc nvcc"]).returncode != 0
    program = (Path(__file__).parent / "two_ranks.py").read_text()
    script = 'printf "%s" "$1" > /tmp/two_ranks.py && exec torchrun --nproc-per-node 2 /tmp/two_ranks.py'
    done = trainer.execute(["sh", "-c", script, "sh", program])
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("rank")) == [
        "rank 0: operators loaded, loss fell",
        "rank 1: operators loaded, loss fell",
    ]


@takes_minutes
def test_trainer_holds_no_operator(trainer: Image) -> None:
    program = "from importlib.util import find_spec; "
    program += "print([name for name in ('kopf', 'kubernetes', 'tunewright') if find_spec(name)])"
    assert python(trainer, program) == "[]"


@takes_minutes
def test_trainer_operators_run_on_older_processors(trainer: Image) -> None:
    """Compiled for x86-64-v3 and not for the machine that built it: no AVX-512 instruction may be inside."""
    objects = list(trainer.root.glob("opt/venv/lib/python3*/site-packages/deepspeed/ops/*/*_op*.so"))
    assert {path.name.split(".")[0] for path in objects} == {"cpu_adam_op", "deepspeed_shm_comm_op"}
    adam = next(path for path in objects if path.name.startswith("cpu_adam"))
    assert b"-march=x86-64-v3" in adam.read_bytes()


@takes_minutes
def test_trainer_is_as_small_as_its_dockerfile_says(trainer: Image) -> None:
    assert_size(trainer, "trainer_image")
