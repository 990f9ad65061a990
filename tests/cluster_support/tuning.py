"""Jobs of a tiny model in a namespace of a test's own: what they read, how they are made and watched."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.devcluster.storage import STORAGE_CLASS
from hack.test_materials import faq_messages, make_tiny_model
from tests.builders import merged
from tests.cluster_support.admin import Object
from tests.cluster_support.installation import POOL, Installation, pod_processes
from tunewright.core import names

CLAIM = "work"
POLL_SECONDS = 0.15
START_SECONDS = 240
"""Longest that two ranks may take to load and make a step on a machine that is busy."""
SHORT_SECONDS = 90


@dataclass
class Tuning:
    """One namespace with the claim ``work``: a tiny model at ``model``, 40 rows at ``train.jsonl``."""

    installation: Installation
    namespace: str
    folder: Path
    jobs: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, installation: Installation, namespace: str) -> Tuning:
        folder = installation.cluster.state.storage / namespace
        tuning = cls(installation, namespace, folder)
        make_tiny_model(folder / "model")
        tuning.write_rows(faq_rows(40))
        tuning.claim(CLAIM, folder)
        return tuning

    def close(self) -> None:
        """Delete what jobs are left; each has to go, whatever its test did to it."""
        for name in self.jobs:
            self.delete(name)

    # --- What jobs read -------------------------------------------------------------------------------

    def write_rows(self, rows: list[str], name: str = "train.jsonl") -> None:
        (self.folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def claim(self, name: str, folder: Path) -> None:
        """A bound claim whose content is ``folder``, open to the pods' user."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o644)
        volume = f"{self.namespace}-{name}"
        size = {"storage": "1Gi"}
        modes = ["ReadWriteMany"]
        cluster = self.installation.cluster
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {
                    "capacity": size,
                    "accessModes": modes,
                    "storageClassName": STORAGE_CLASS,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": str(folder)},
                    "claimRef": {"namespace": self.namespace, "name": name},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "accessModes": modes,
                    "storageClassName": STORAGE_CLASS,
                    "resources": {"requests": size},
                    "volumeName": volume,
                },
            },
        )

    # --- Making jobs ----------------------------------------------------------------------------------

    def manifest(self, name: str = "tune", *, nodes: int = 2, **changes: Any) -> Object:
        """A LoRA job under ZeRO-2, one CPU rank in each of ``nodes`` pods; ``changes`` go into its spec."""
        spec = {
            "model": {"source": f"pvc://{CLAIM}/model"},
            "dataset": {"train": [{"source": f"pvc://{CLAIM}/train.jsonl"}], "maxSequenceLength": 128},
            "method": {"type": "LoRA", "lora": {"rank": 4, "alpha": 8}},
            "training": {
                "maxSteps": 12,
                "learningRate": 0.01,
                "batch": {"global": 2, "micro": 1},
                "precision": "FP32",
            },
            "deepspeed": {"zeroStage": 2},
            "compute": {"nodes": nodes, "gpusPerNode": 0, "processesPerNode": 1, "nodeSelector": POOL},
            "checkpoint": {"everySteps": 10},
            "output": {"destination": f"pvc://{CLAIM}/out/{name}"},
        }
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": merged(spec, changes),
        }

    def apply(self, manifest: Object) -> str:
        """``kubectl apply``; the job's name."""
        self.installation.cluster.apply(manifest)
        name: str = manifest["metadata"]["name"]
        self.jobs.append(name)
        return name

    def start(self, name: str = "tune", **changes: Any) -> str:
        """Apply :meth:`manifest`."""
        return self.apply(self.manifest(name, **changes))

    def change(self, name: str, **lifecycle: Any) -> None:
        """Change ``spec.lifecycle``."""
        self.installation.api.merge("finetunejobs", self.namespace, name, {"spec": {"lifecycle": lifecycle}})

    def delete(self, name: str, *, wait_seconds: float = SHORT_SECONDS) -> None:
        """Delete the job and wait until it is gone, as ``kubectl delete`` does."""
        api = self.installation.api
        if api.find("finetunejobs", self.namespace, name) is not None:
            api.delete("finetunejobs", self.namespace, name, propagationPolicy="Background")
        self.wait(name, lambda: self.job(name) is None, "the job is gone", wait_seconds)

    # --- Looking --------------------------------------------------------------------------------------

    def job(self, name: str) -> Object | None:
        return self.installation.api.find("finetunejobs", self.namespace, name)

    def status(self, name: str) -> Object:
        """The job's status; empty before there is any."""
        return (self.job(name) or {}).get("status") or {}

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", "Pending"))

    def pods(self, name: str, component: str = "", attempt: int | None = None) -> list[Object]:
        """Pods of the job that the API server has."""
        selector = f"{names.LABEL_JOB_NAME}={name}"
        selector += f",{names.LABEL_COMPONENT}={component}" if component else ""
        selector += f",{names.LABEL_ATTEMPT}={attempt}" if attempt else ""
        return self.installation.api.list("pods", self.namespace, selector)

    def workers(self, name: str) -> list[Object]:
        """Live worker pods of the current attempt, by completion index."""
        attempt = (self.status(name).get("attempts") or [{}])[-1].get("number")
        pods = self.pods(name, names.COMPONENT_TRAIN, attempt)
        return sorted(
            (pod for pod in pods if pod["status"].get("phase") == "Running"),
            key=lambda pod: pod["metadata"]["name"],
        )

    def workers_ever(self, name: str) -> set[str]:
        """Worker Jobs ever made for the job, and pods of theirs that got a node, from the audit log."""
        found = set()
        for line in self.installation.cluster.audit_log.read_text().splitlines():
            if f'"{self.namespace}"' not in line or '"create"' not in line:
                continue
            reference = json.loads(line).get("objectRef") or {}
            # Pods are made by generateName: the first request that names one binds it.
            kind = (reference.get("resource"), reference.get("subresource"))
            if kind in (("jobs", None), ("pods", "binding")):
                found.add(str(reference.get("name")))
        return {each for each in found if each.startswith(f"{name}-a")}

    def events(self, name: str) -> list[Object]:
        events = self.installation.api.list("events", self.namespace)
        return [each for each in events if each["regarding"].get("name") == name]

    # --- Waiting --------------------------------------------------------------------------------------

    def wait(
        self, name: str, condition: Callable[[], object], what: str, seconds: float = SHORT_SECONDS
    ) -> None:
        """Wait for ``condition``; fails with the job's status, its pods and the operator's log."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"Waited {seconds:g} s until {what}.\n{self.account(name)}")
            time.sleep(POLL_SECONDS)

    def wait_phase(self, name: str, phase: str, seconds: float = START_SECONDS) -> Object:
        """Wait until the job is in ``phase``; its status. Fails at once when it ended otherwise."""
        seen: list[Object] = [{}]

        def arrived() -> bool:
            seen[0] = self.status(name)
            now = seen[0].get("phase", "Pending")
            if now in ("Failed", "Succeeded") and now != phase:
                raise AssertionError(f"{name} is {now} instead of {phase}.\n{self.account(name)}")
            return bool(now == phase)

        self.wait(name, arrived, f"{name} is {phase}", seconds)
        return seen[0]

    def wait_running(self, name: str, attempt: int = 1, *, checkpoint: bool = False) -> Object:
        """Wait until ``attempt`` makes steps (and has a checkpoint of its own, if asked); the status."""
        seen: list[Object] = [{}]

        def runs() -> bool:
            status = seen[0] = self.status(name)
            if status.get("phase") in ("Failed", "Succeeded"):
                raise AssertionError(f"{name} has ended too early.\n{self.account(name)}")
            progress = status.get("progress") or {}
            saved = progress.get("lastCheckpointStep", 0)
            resumed = (status.get("attempts") or [{}])[-1].get("resumedFromStep", 0)
            return bool(
                status.get("phase") == "Running"
                and progress.get("attempt") == attempt
                and progress.get("step", 0) > resumed
                and (not checkpoint or saved > resumed)
            )

        self.wait(name, runs, f"{name} makes steps in attempt {attempt}", START_SECONDS)
        return seen[0]

    def account(self, name: str) -> str:
        """All that explains where a job is."""
        status = self.status(name)
        short = {key: status.get(key) for key in ("phase", "message", "progress", "attempts", "restarts")}
        timeline = [
            f"{entry['time']} {entry['phase']}/{entry['reason']}: {entry['message'][:300]}"
            for entry in status.get("timeline") or ()
        ]
        pods = [
            f"{pod['metadata']['name']} on {pod['spec'].get('nodeName')}: {pod['status'].get('phase')} "
            f"{str([each.get('state') for each in pod['status'].get('containerStatuses') or ()])[:500]}"
            for pod in self.pods(name)
        ]
        parts = {
            "Status": [json.dumps(short)],
            "Timeline": timeline,
            "Pods": pods,
            "Operator": [self.installation.operator_log()],
        }
        return "\n".join(f"{title}:\n  " + "\n  ".join(lines) for title, lines in parts.items())


def rank_processes(pod: Object) -> list[int]:
    """Process ids of the ranks of a worker pod."""
    found = pod_processes(pod["metadata"]["uid"])
    # torchrun's own command line names the module too.
    return [pid for pid, command in found.items() if " -m tunewright_trainer.train.rank" in command]


def launcher_process(pod: Object) -> int:
    """Process id of a pod's main process."""
    found = pod_processes(pod["metadata"]["uid"])
    (pid,) = [pid for pid, command in found.items() if "-m tunewright_trainer train" in command]
    return pid


def send(pids: list[int], number: signal.Signals) -> None:
    assert pids, "no such process"
    for pid in pids:
        os.kill(pid, number)


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of a status; empty when it is not there."""
    return next((each for each in status.get("conditions") or () if each["type"] == kind), {})


def faq_rows(count: int) -> list[str]:
    """The first rows of the real chat data, as JSON lines."""
    with tempfile.TemporaryDirectory() as folder:
        return faq_messages(Path(folder)).train.read_text(encoding="utf-8").splitlines()[:count]
