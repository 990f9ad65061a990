"""Pods on process nodes: what runs in them, what they leave, and how they end."""

from __future__ import annotations

import json
import subprocess

import pytest

from hack.devcluster.cluster import DevCluster
from hack.devcluster.node_spec import node_mark
from hack.devcluster.process import marked_processes
from tests.devcluster.builders import TRAINER_IMAGE, container, pod
from tests.devcluster.watching import container_state, event_reasons, wait_gone, wait_log, wait_phase

pytestmark = pytest.mark.cluster

SHOW_ALL = """
import json, os, pathlib
mounts = json.loads(os.environ["MOUNTS"])
read = lambda mount, name: pathlib.Path(mounts[mount], name).read_text()
print(json.dumps({
    "config": read("configmap", "settings.json"),
    "secret": read("secret", "password"),
    "labels": read("downward", "labels"),
    "from_env": os.environ["FROM_SECRET"],
    "expanded": os.environ["EXPANDED"],
    "argument": pathlib.Path("$(DIRECT)").read_text(),
    "uid": os.getuid(),
    "host_variable": os.environ.get("HOST_ONLY"),
}))
pathlib.Path(os.environ["MESSAGE"]).write_text("all read")
raise SystemExit(3)
"""


def test_pod_reads_its_volumes_and_tells_its_end(
    dev_cluster: DevCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_ONLY", "seen")
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}}
    mounts = {name: f"/mnt/{name}" for name in ("configmap", "secret", "downward")}
    main = container(
        SHOW_ALL,
        env=[
            {"name": "MOUNTS", "value": json.dumps(mounts)},
            {"name": "DIRECT", "value": "/mnt/configmap/settings.json"},
            {"name": "EXPANDED", "value": "<$(DIRECT2)> $$(DIRECT)"},
            {"name": "MESSAGE", "value": "/message"},
            {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        ],
        volumeMounts=[{"name": name, "mountPath": path} for name, path in mounts.items()],
        terminationMessagePath="/message",
    )
    volumes = [
        {"name": "configmap", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "login"}},
        {
            "name": "downward",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.name"}}]},
        },
    ]
    # The pod first: its volumes are waited for.
    dev_cluster.apply(pod(main=main, volumes=volumes), namespace=namespace)
    dev_cluster.apply(
        settings | {"data": {"settings.json": '{"a": 1}'}},
        secret | {"stringData": {"password": "s3cret"}},
        namespace=namespace,
    )
    ended = container_state(wait_phase(dev_cluster, namespace, "one", "Failed"))["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "all read")
    assert ended["startedAt"] <= ended["finishedAt"]
    shown = json.loads(dev_cluster.logs("one", namespace))
    assert shown.pop("uid") != 0
    assert shown == {
        "config": '{"a": 1}',
        "secret": "s3cret",
        "labels": "one",
        "from_env": "s3cret",
        "expanded": "<$(DIRECT2)> $(DIRECT)",
        "argument": '{"a": 1}',
        "host_variable": None,
    }


def test_a_claim_is_shared_by_two_pods_and_cleaned_up(dev_cluster: DevCluster, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    dev_cluster.apply(claim, namespace=namespace)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mount = [{"name": "data", "mountPath": "/data"}]
    write = container("open('/data/x', 'w').write('from the first')", volumeMounts=mount)
    dev_cluster.apply(
        pod("first", main=write, volumes=volumes, nodeSelector=on("node-0")), namespace=namespace
    )
    wait_phase(dev_cluster, namespace, "first", "Succeeded")
    read = container("print(open('/data/x').read())", volumeMounts=mount)
    dev_cluster.apply(
        pod("second", main=read, volumes=volumes, nodeSelector=on("node-1")), namespace=namespace
    )
    wait_phase(dev_cluster, namespace, "second", "Succeeded")
    assert dev_cluster.logs("second", namespace) == "from the first\n"
    volume = dev_cluster.get("pvc", "data", namespace)["spec"]["volumeName"]
    folder = dev_cluster.state.storage / volume
    assert (folder / "x").is_file()
    dev_cluster.kubectl("delete", "pod,pvc", "--all", "-n", namespace, "--wait=false")
    wait_gone(dev_cluster, "pv", volume)
    assert not folder.exists()


def test_logs_can_be_followed_to_the_end(dev_cluster: DevCluster, namespace: str) -> None:
    gate = container(
        "import os, time\nprint('first', flush=True)\n"
        "while 'open' not in open('/gate/state').read(): time.sleep(0.1)\nprint('last')",
        volumeMounts=[{"name": "gate", "mountPath": "/gate"}],
    )
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gate"},
        "data": {"state": "shut"},
    }
    dev_cluster.apply(config, namespace=namespace)
    dev_cluster.apply(
        pod(main=gate, volumes=[{"name": "gate", "configMap": {"name": "gate"}}]), namespace=namespace
    )
    wait_log(dev_cluster, namespace, "one", "first")
    command = [str(dev_cluster.state.binaries / "kubectl"), "logs", "-f", "one", "-n", namespace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dev_cluster.env) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "first\n"
        dev_cluster.apply(config | {"data": {"state": "open"}}, namespace=namespace)
        # Ends by itself, which also shows that the files of a ConfigMap follow it.
        rest, _ = follower.communicate(timeout=90)
        assert rest == "last\n"
    assert follower.returncode == 0
    assert dev_cluster.logs("one", namespace, "--tail=1") == "last\n"


def test_sigterm_grace_then_removal(dev_cluster: DevCluster, namespace: str) -> None:
    script = (
        "import signal, sys, time\n"
        "def stop(*_):\n    open('/dev/termination-log', 'w').write('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    # A finalizer keeps the object, so that its last status can be seen.
    held = pod(script=script)
    held["metadata"]["finalizers"] = ["test/hold"]
    dev_cluster.apply(held, namespace=namespace)
    wait_log(dev_cluster, namespace, "one", "ready")
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--wait=false")
    ended = container_state(wait_phase(dev_cluster, namespace, "one"))["terminated"]
    assert (ended["exitCode"], ended["message"]) == (143, "saved")
    dev_cluster.kubectl("patch", "pod", "one", "-n", namespace, "-p", '{"metadata": {"finalizers": null}}')
    wait_gone(dev_cluster, "pod", "one", namespace)


def test_a_deaf_process_is_killed_after_its_grace(dev_cluster: DevCluster, namespace: str) -> None:
    script = (
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    held = pod(script=script, terminationGracePeriodSeconds=1)
    held["metadata"]["finalizers"] = ["test/hold"]
    dev_cluster.apply(held, namespace=namespace)
    wait_log(dev_cluster, namespace, "one", "ready")
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--wait=false")
    last = wait_phase(dev_cluster, namespace, "one", "Failed")
    assert container_state(last)["terminated"]["exitCode"] == 137
    dev_cluster.kubectl("patch", "pod", "one", "-n", namespace, "-p", '{"metadata": {"finalizers": null}}')
    wait_gone(dev_cluster, "pod", "one", namespace)


def test_a_forced_deletion_shortens_the_grace(dev_cluster: DevCluster, namespace: str) -> None:
    script = (
        "import signal, time\nsignal.signal(15, lambda *_: print('one SIGTERM', flush=True))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(600)"
    )
    dev_cluster.apply(pod(script=script, terminationGracePeriodSeconds=600), namespace=namespace)
    wait_log(dev_cluster, namespace, "one", "ready")
    running = dev_cluster.get("pod", "one", namespace)
    mark = f"{node_mark(dev_cluster.state, running['spec']['nodeName'])}/{running['metadata']['uid']}"
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--wait=false")
    wait_log(dev_cluster, namespace, "one", "one SIGTERM")
    assert marked_processes(mark)
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--force", "--grace-period=0")
    wait_gone(dev_cluster, "pod", "one", namespace)
    dev_cluster.wait_for(lambda: not marked_processes(mark), 20, "the processes to end")
    finished = dev_cluster.state.node(running["spec"]["nodeName"]) / "finished-logs"
    folder = f"{namespace}_one_{running['metadata']['uid'][:8]}"
    log = finished / folder / "main" / "0.log"
    dev_cluster.wait_for(log.is_file, 20, "the log to be kept")
    assert log.read_text().split("\n").count("one SIGTERM") == 1


def test_init_containers_run_in_order_and_stop_the_pod(dev_cluster: DevCluster, namespace: str) -> None:
    mount = {"volumeMounts": [{"name": "s", "mountPath": "/s"}]}
    append = "import sys; open('/s/f', 'a').write('%s'); sys.exit(%d)"
    init = [container(append % (name, 0), name=name, **mount) for name in ("a", "b")]
    volumes = [{"name": "s", "emptyDir": {}}]
    show = container("print(open('/s/f').read())", **mount)
    dev_cluster.apply(pod(main=show, initContainers=init, volumes=volumes), namespace=namespace)
    wait_phase(dev_cluster, namespace, "one", "Succeeded")
    assert dev_cluster.logs("one", namespace, "-c", "main") == "ab\n"
    init[1] = container(append % ("b", 7), name="b", **mount)
    dev_cluster.apply(pod("two", main=show, initContainers=init, volumes=volumes), namespace=namespace)
    failed = wait_phase(dev_cluster, namespace, "two", "Failed")
    assert failed["status"]["initContainerStatuses"][1]["state"]["terminated"]["exitCode"] == 7
    assert container_state(failed) == {"waiting": {"reason": "PodInitializing"}}


def test_a_crashing_container_is_restarted_with_back_off(dev_cluster: DevCluster, namespace: str) -> None:
    script = "print('again'); raise SystemExit(9)"
    main = container(script, terminationMessagePolicy="FallbackToLogsOnError")
    dev_cluster.apply(pod(main=main, restartPolicy="Always"), namespace=namespace)

    def crashed_twice() -> bool:
        status = dev_cluster.get("pod", "one", namespace)["status"]["containerStatuses"][0]
        return status["restartCount"] >= 2 and "waiting" in status["state"]

    dev_cluster.wait_for(crashed_twice, 60, "a second restart")
    found = dev_cluster.get("pod", "one", namespace)
    assert found["status"]["phase"] == "Running"
    status = found["status"]["containerStatuses"][0]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["lastState"]["terminated"]["exitCode"] == 9
    assert status["lastState"]["terminated"]["message"] == "again\n"
    assert dev_cluster.logs("one", namespace, "--previous") == "again\n"


def test_probes_decide_readiness_and_restarts(dev_cluster: DevCluster, namespace: str) -> None:
    server = (
        "import http.server, os, pathlib\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        there = pathlib.Path('/s/broken').exists()\n"
        "        self.send_response(500 if self.path == '/live' and there else 200); self.end_headers()\n"
        "    def do_POST(self):\n"
        "        pathlib.Path('/s/broken').touch(); self.send_response(200); self.end_headers()\n"
        "pathlib.Path('/s/broken').unlink(missing_ok=True)\n"
        "http.server.HTTPServer((os.environ['POD_IP'], 18080), H).serve_forever()\n"
    )
    main = container(
        server,
        env=[{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        ports=[{"name": "web", "containerPort": 18080}],
        volumeMounts=[{"name": "s", "mountPath": "/s"}],
        readinessProbe={"tcpSocket": {"port": "web"}, "periodSeconds": 1},
        livenessProbe={
            "httpGet": {"path": "/live", "port": "web"},
            "periodSeconds": 1,
            "failureThreshold": 2,
            "initialDelaySeconds": 1,
        },
        startupProbe={"exec": {"command": ["python", "-c", "open('/s/ok', 'w')"]}, "timeoutSeconds": 20},
    )
    volumes = [{"name": "s", "emptyDir": {}}]
    dev_cluster.apply(pod(main=main, volumes=volumes, restartPolicy="Always"), namespace=namespace)

    def restarts_and_ready() -> tuple[int, bool]:
        status = dev_cluster.get("pod", "one", namespace)["status"]["containerStatuses"][0]
        return status["restartCount"], status["ready"]

    dev_cluster.wait_for(lambda: restarts_and_ready() == (0, True), 60, "the pod to be ready")
    break_it = (
        "import os, urllib.request\n"
        "urllib.request.urlopen(urllib.request.Request(os.environ['URL'], method='POST')).read()\n"
    )
    headless = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 18081, "targetPort": "web"}]},
    }
    dev_cluster.apply(headless, namespace=namespace)
    dev_cluster.kubectl("label", "pod", "one", "app=web", "-n", namespace)
    dev_cluster.wait_for(lambda: endpoint_ready(dev_cluster, namespace, "web"), 30, "the Service's endpoint")
    caller = container(break_it, env=[{"name": "URL", "value": f"http://web.{namespace}.svc:18081/"}])
    dev_cluster.apply(pod("caller", main=caller), namespace=namespace)
    wait_phase(dev_cluster, namespace, "caller", "Succeeded")
    dev_cluster.wait_for(lambda: restarts_and_ready() == (1, True), 60, "a restart by the liveness probe")
    assert "Liveness probe failed" in event_reasons(dev_cluster, namespace, "one")["Unhealthy"]


def test_unknown_image_is_an_image_pull_error(dev_cluster: DevCluster, namespace: str) -> None:
    dev_cluster.apply(pod(main=container(image="nosuch/image:1")), namespace=namespace)

    def reason() -> str:
        state = container_state(dev_cluster.get("pod", "one", namespace))
        return str((state.get("waiting") or {}).get("reason"))

    dev_cluster.wait_for(lambda: reason() == "ImagePullBackOff", 60, "ImagePullBackOff")
    assert "nosuch/image:1" in event_reasons(dev_cluster, namespace, "one")["Failed"]
    dev_cluster.kubectl("delete", "pod", "one", "-n", namespace, "--wait=false")
    wait_gone(dev_cluster, "pod", "one", namespace)


def test_a_privileged_pod_is_refused(dev_cluster: DevCluster, namespace: str) -> None:
    main = container("print('never')", securityContext={"privileged": True})
    dev_cluster.apply(pod(main=main), namespace=namespace)
    refused = wait_phase(dev_cluster, namespace, "one", "Failed")
    assert refused["status"]["reason"] == "Refused"
    assert "privileged" in event_reasons(dev_cluster, namespace, "one")["Refused"]


def test_a_missing_program_fails_as_on_a_kubelet(dev_cluster: DevCluster, namespace: str) -> None:
    main = {"name": "main", "image": TRAINER_IMAGE, "command": ["nosuch"]}
    dev_cluster.apply(pod(main=main), namespace=namespace)
    ended = container_state(wait_phase(dev_cluster, namespace, "one", "Failed"))["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")


def on(node: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": node}


def endpoint_ready(cluster: DevCluster, namespace: str, service: str) -> bool:
    slices = cluster.list("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")
    endpoints = [each for found in slices for each in found.get("endpoints") or []]
    return any(each["conditions"]["ready"] for each in endpoints)
