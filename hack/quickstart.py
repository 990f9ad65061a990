"""`make quickstart`: from `kubectl apply` to a tuned adapter on this machine, by the product's own path.

A real API server, scheduler and controller-manager; the operator installed by the Helm chart under that
chart's rights; DeepSpeed ranks in two pods. What differs from a cluster: pods are processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hack.bootstrap import helm_path
from hack.devcluster.cluster import ClusterError, DevCluster, NodeSpec
from hack.devcluster.images import IMPORT_ROOTS, REPOSITORY_ROOT
from hack.devcluster.storage import STORAGE_CLASS
from hack.make_test_model import make_smollm2
from hack.test_materials import faq_messages

EXAMPLE = REPOSITORY_ROOT / "examples" / "quickstart.yaml"
JOB = "support-bot"
NAMESPACE = "default"
SYSTEM_NAMESPACE = "tunewright-system"
DEADLINE_SECONDS = 900
END_PHASES = ("Succeeded", "Failed")

_started = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    say("Model: SmolLM2-135M-Instruct (converted once, then cached)")
    model = make_smollm2()
    nodes = [NodeSpec("node-0"), NodeSpec("node-1")]
    cluster = DevCluster(options.dir, nodes, owned=not options.keep, report=say)
    improved = False
    try:
        cluster.up()
        improved = _tune(cluster, model)
    except ClusterError as error:
        print(f"\n{error}", file=sys.stderr)
    finally:
        if options.keep:
            say(f"The cluster stays: export KUBECONFIG={cluster.kubeconfig}")
            say(f"Stop it with: python -m hack.devcluster down --dir {cluster.state.root}")
        else:
            say("Stopping the cluster")
            cluster.down()
    return 0 if improved else 1


def _tune(cluster: DevCluster, model: Path) -> bool:
    """Install, apply, follow, compare; True when the tuned model is better on held-out data."""
    _install(cluster)
    _claims(cluster, model)
    with tempfile.TemporaryDirectory() as scratch:
        data = faq_messages(Path(scratch))
        _apply(cluster, data.train)
        if not _follow(cluster):
            return False
        adapter = _adapter_folder(cluster)
        improved = _compare(model, adapter, data.held_out)
    say(f"The adapter is in {adapter}")
    return improved


def say(line: str) -> None:
    """Print ``line`` with the time since the start."""
    print(f"[{time.monotonic() - _started:6.1f} s] {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make quickstart", description=__doc__)
    parser.add_argument(
        "--dir",
        type=Path,
        default=REPOSITORY_ROOT / ".devcluster" / "quickstart",
        help="folder for the cluster's state, logs and volumes (default %(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster running at the end")
    return parser


def _install(cluster: DevCluster) -> None:
    chart = REPOSITORY_ROOT / "charts" / "tunewright"
    say("$ helm install tunewright charts/tunewright")
    _run(
        [
            str(helm_path()),
            "install",
            "tunewright",
            str(chart),
            "--namespace",
            SYSTEM_NAMESPACE,
            "--create-namespace",
            # The default of 30 s spares the API server in long trainings; this one takes a minute.
            "--set",
            "progress.statusSeconds=5",
        ],
        cluster.env,
    )
    deployment = ("rollout", "status", "deployment/tunewright", "--namespace", SYSTEM_NAMESPACE)
    cluster.kubectl(*deployment, "--timeout=90s", timeout=100)
    say("The operator is ready")


def _claims(cluster: DevCluster, model: Path) -> None:
    """The claim ``models`` with the model in it, and an empty one for adapters."""
    folder = cluster.state.storage / "models"
    shutil.copytree(model, folder / "smollm2-135m")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "models"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": NAMESPACE, "name": "models"},
        },
    }
    cluster.apply(volume, _claim("models", "models"), _claim("adapters"))


def _claim(name: str, volume: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    if volume:
        spec |= {"volumeName": volume, "storageClassName": STORAGE_CLASS}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _apply(cluster: DevCluster, train: Path) -> None:
    say("$ kubectl create configmap faq --from-file=train.jsonl")
    cluster.kubectl("create", "configmap", "faq", f"--from-file={train}", "--namespace", NAMESPACE)
    say("$ kubectl apply -f examples/quickstart.yaml")
    cluster.kubectl("apply", "-f", str(EXAMPLE), "--namespace", NAMESPACE)


def _follow(cluster: DevCluster) -> bool:
    """Show what the status says whenever it says something new; True when the job has succeeded."""
    shown = ""
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        status = cluster.get("finetunejob", JOB, NAMESPACE).get("status") or {}
        line = f"{status.get('phase', 'Pending'):<12} {status.get('message', '')}"
        if line != shown:
            say(line)
            shown = line
        if status.get("phase") in END_PHASES:
            return bool(status["phase"] == "Succeeded")
        time.sleep(1)
    raise ClusterError(
        f"{JOB} has not ended after {DEADLINE_SECONDS} s; its logs are in {cluster.state.root}"
    )


def _adapter_folder(cluster: DevCluster) -> Path:
    claim = cluster.get("persistentvolumeclaim", "adapters", NAMESPACE)
    volume = cluster.get("persistentvolume", claim["spec"]["volumeName"])
    return Path(volume["spec"]["hostPath"]["path"]) / JOB


def _compare(model: Path, adapter: Path, held_out: Path) -> bool:
    """Answer one question by the base and by the tuned model; True when held-out loss fell by 5 %."""
    say("Comparing the base model and the tuned one on questions that training never saw")
    command = [sys.executable, "-m", "hack.compare_models", str(model), str(adapter), str(held_out)]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY_ROOT}:{':'.join(map(str, IMPORT_ROOTS))}"}
    result = json.loads(_run(command, environment).splitlines()[-1])
    print(f"\n  Question:  {result['question']}")
    print(f"  Base:      {result['base_answer']}")
    print(f"  Tuned:     {result['tuned_answer']}\n", flush=True)
    base, tuned = result["base_loss"], result["tuned_loss"]
    change = 100 * (tuned / base - 1)
    say(f"Held-out loss {base:.3f} -> {tuned:.3f} ({change:+.1f} %)")
    return bool(change <= -5)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
