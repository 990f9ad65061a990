"""Rows of test_plan.py: export and ends."""

from __future__ import annotations

from tests.builders import (
    NOW,
    at,
    make_export,
    make_failure,
    make_status,
)
from tests.unit.core.cases.worlds import (
    EXPORT,
    JUST_NOW,
    Case,
    cpu,
    ended,
    exit_of,
    exporting,
    gang,
    lifecycle,
    running,
    training,
    world_of,
)
from tunewright.core.outcome import timestamp
from tunewright_trainer.contract import Reason

AFTER = [
    Case(
        "export is made", world_of(exporting()), "Exporting", "Exporting", create=("Job/support-bot-export",)
    ),
    Case(
        "export is made with its config map",
        world_of(exporting(), config_maps=()),
        "Exporting",
        "Exporting",
        create=("ConfigMap/support-bot-a1", "Job/support-bot-export"),
    ),
    Case("export runs", world_of(exporting(), *cpu(EXPORT, "Active", {})), "Exporting", "Exporting"),
    Case(
        "export config map deleted",
        world_of(exporting(), *cpu(EXPORT, "Active", {}), config_maps=()),
        "Exporting",
        "Exporting",
        create=("ConfigMap/support-bot-a1",),
    ),
    Case(
        "export waits for a node",
        world_of(exporting(), *cpu(EXPORT, "Active", {"unschedulable": "0/1."})),
        "Exporting",
        "Unschedulable",
    ),
    Case(
        "export retries",
        world_of(exporting(), *cpu(EXPORT, "Active", exit_of(74), {})),
        "Exporting",
        "UploadRetrying",
        "The export is tried again: Pod support-bot-export-0-abcde ended",
        warning=True,
    ),
    Case(
        "export failed",
        world_of(
            exporting(),
            *cpu(
                EXPORT,
                "Failed",
                exit_of(
                    74,
                    answer=make_failure(
                        Reason.STORAGE_FAILED, message="Read-only file system", rank=None, step=None
                    ),
                ),
            ),
        ),
        "Failed",
        "StorageFailed",
        "Read-only file system. Nothing is lost: the finished result is in the workspace "
        "(pvc://adapters/support-bot/.tunewright).",
    ),
    Case(
        "export failed, pod on its way",
        world_of(exporting(), *cpu(EXPORT, "Failed", ended=JUST_NOW)),
        "Exporting",
        "Exporting",
        requeue=4,
    ),
    Case(
        "export result lost",
        world_of(exporting(), *cpu(EXPORT, "Complete")),
        "Exporting",
        "ResultLost",
        delete=("jobs/support-bot-export",),
    ),
    Case(
        "export result on its way",
        world_of(exporting(), *cpu(EXPORT, "Complete", ended=JUST_NOW)),
        "Exporting",
        "Exporting",
        requeue=4,
    ),
    Case(
        "success",
        world_of(exporting(), *cpu(EXPORT, "Complete", exit_of(0, answer=make_export()))),
        "Succeeded",
        "Succeeded",
        "pvc://adapters/support-bot/adapter, read back and verified.",
        warning=False,
        expect={
            ".outputs.0.digest": "sha256:feed",
            ".completedAt": timestamp(NOW),
            "remove_finalizer": False,
        },
    ),
    Case(
        "success adopted",
        world_of(exporting(), *cpu(EXPORT, "Complete", exit_of(0, answer=make_export(adopted=True)))),
        "Succeeded",
        "Succeeded",
        expect={".outputs.0.adopted": True},
    ),
    Case(
        "succeeded stays, finalizer goes",
        world_of(ended("Succeeded"), *gang(state="Complete")),
        "Succeeded",
        "Succeeded",
        expect={"remove_finalizer": True, "add_finalizer": False},
    ),
    Case(
        "failed stays",
        world_of(ended("Failed"), *gang(exit_of(70), state="Failed"), finalizers=()),
        "Failed",
        "Failed",
        expect={"remove_finalizer": False, "add_finalizer": False, "delete_self": False},
    ),
    Case(
        "failed is not suspended", world_of(ended("Failed"), spec=lifecycle(suspend=True)), "Failed", "Failed"
    ),
    Case(
        "succeeded knows no deadline",
        world_of(ended("Succeeded"), spec=lifecycle(activeDeadlineSeconds=1)),
        "Succeeded",
        "Succeeded",
        now=at(1000),
    ),
    Case(
        "what still runs after the end is stopped",
        world_of(ended("Failed"), *running()),
        "Failed",
        "Failed",
        delete=("jobs/support-bot-a1",),
        requeue=5,
        expect={"remove_finalizer": False},
    ),
    Case(
        "finalizer waits for the last pod",
        world_of(ended("Failed"), *gang({"deleting": True}, deleting=True)),
        "Failed",
        "Failed",
        requeue=5,
        expect={"remove_finalizer": False},
    ),
    Case(
        "time to live",
        world_of(ended("Succeeded"), spec=lifecycle(ttlSecondsAfterFinished=60), finalizers=()),
        "Succeeded",
        "Succeeded",
        now=at(20),
        requeue=40,
        expect={"delete_self": False},
    ),
    Case(
        "time to live over",
        world_of(ended("Succeeded"), spec=lifecycle(ttlSecondsAfterFinished=60), finalizers=()),
        "Succeeded",
        "Succeeded",
        now=at(60),
        requeue=0,
        expect={"delete_self": True},
    ),
    Case(
        "time to live over, finalizer first",
        world_of(ended("Succeeded"), spec=lifecycle(ttlSecondsAfterFinished=60)),
        "Succeeded",
        "Succeeded",
        now=at(60),
        requeue=0,
        expect={"delete_self": False, "remove_finalizer": True},
    ),
    Case(
        "deadline",
        world_of(training(), *running(), spec=lifecycle(activeDeadlineSeconds=600)),
        "Failed",
        "DeadlineExceeded",
        "Not done 600 s after its start at 2030-01-01T12:00:00Z",
        now=at(600),
        expect={".attempts.0.reason": "DeadlineExceeded"},
    ),
    Case(
        "deadline over before it was seen that the export is done",
        world_of(
            exporting(),
            *cpu(EXPORT, "Complete", exit_of(0, answer=make_export())),
            spec=lifecycle(activeDeadlineSeconds=600),
        ),
        "Succeeded",
        "Succeeded",
        "read back and verified.",
        now=at(600),
        expect={".outputs.0.digest": "sha256:feed", ".completedAt": timestamp(at(600))},
    ),
    Case(
        "deadline over while the export runs",
        world_of(exporting(), *cpu(EXPORT, "Active", {}), spec=lifecycle(activeDeadlineSeconds=600)),
        "Failed",
        "DeadlineExceeded",
        now=at(600),
    ),
    Case(
        "deadline over with an export that failed",
        world_of(
            exporting(),
            *cpu(EXPORT, "Failed", exit_of(70)),
            spec=lifecycle(activeDeadlineSeconds=600),
        ),
        "Failed",
        "DeadlineExceeded",
        now=at(600),
    ),
    Case(
        "deadline over with an export whose result is lost",
        world_of(exporting(), *cpu(EXPORT, "Complete"), spec=lifecycle(activeDeadlineSeconds=600)),
        "Failed",
        "DeadlineExceeded",
        now=at(600),
    ),
    Case(
        "deadline to come",
        world_of(
            make_status(), *gang({}, {"unschedulable": "0/2."}), spec=lifecycle(activeDeadlineSeconds=600)
        ),
        "Provisioning",
        "Unschedulable",
        now=at(100),
        requeue=500,
    ),
]
