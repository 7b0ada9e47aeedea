"""The pod that runs load_program.py inside a cluster: the gateway's image, and the program's own code by ConfigMap."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.cluster import LOOK_AGAIN, Cluster, Image
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = "tests.deploy.load_program"
NAME = "load"
LABELS = {"carillon-test": NAME}
CLIENTS = 500

#: The Secret that the release takes too, and its keys.
SECRET = "carillon"
TOKEN_SECRET, API_KEYS = "token-hmac-secret", "api-keys"

#: Seconds for one question: settling waits for clients that come back, and for their last publications.
ASK_TIMEOUT = 300

_CODE, _SECRETS, _SOCKET = "/load/code", "/load/secrets", "/tmp/load"


def shipped() -> dict[str, str]:
    """The program and all of `tests.` that it imports, by path: files that need nothing but what is in the image."""
    found: dict[str, str] = {}
    wanted = [PROGRAM]
    while wanted:
        path = wanted.pop().replace(".", "/") + ".py"
        if path not in found:
            found[path] = (ROOT / path).read_text("utf-8")
            wanted += [name for name in imports(found[path]) if name.startswith("tests.")]
    return found


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def manifests(image: Image, *, clients: int = CLIENTS, edge: str, api: str) -> list[dict[str, Any]]:
    """All of it. `edge`, `api`: host and port."""
    code = shipped()
    keys = {path: path.replace("/", ".") for path in code}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "labels": LABELS},
            "data": {keys[path]: text for path, text in code.items()},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": NAME, "labels": LABELS},
            "spec": {"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Egress"], "egress": [{}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": NAME, "labels": LABELS},
            "spec": _pod(image, clients, edge, api, [{"key": key, "path": path} for path, key in keys.items()]),
        },
    ]


def _pod(image: Image, clients: int, edge: str, api: str, files: list[dict[str, str]]) -> dict[str, Any]:
    environ = {
        "PYTHONPATH": f"{_CODE}:/srv/carillon",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CARILLON_TOKEN_HMAC_SECRET_FILE": f"{_SECRETS}/{TOKEN_SECRET}",
        "CARILLON_API_KEYS_FILE": f"{_SECRETS}/{API_KEYS}",
        "LOAD_EDGE": edge,
        "LOAD_API": api,
        "LOAD_CLIENTS": str(clients),
        "LOAD_SOCKET": _SOCKET,
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": NAME,
                "image": str(image),
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-m", PROGRAM, "run"],
                "env": [{"name": name, "value": value} for name, value in environ.items()],
                # It can be asked; whether the clients are in, it says itself.
                "readinessProbe": {
                    "exec": {"command": ["python", "-c", f"import os; os.stat({_SOCKET!r})"]},
                    "periodSeconds": 5,
                    "timeoutSeconds": 5,
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [
                    {"name": "code", "mountPath": _CODE, "readOnly": True},
                    {"name": "secrets", "mountPath": _SECRETS, "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "code", "configMap": {"name": NAME, "items": files}},
            {"name": "secrets", "secret": {"secretName": SECRET, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }


class LoadPod:
    """The running pod, and how to ask it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def start(self, image: Image) -> None:
        """Returns when all clients are in their rooms."""
        self._cluster.apply(*manifests(image, edge="carillon-edge:80", api="carillon-gateway:9000"))
        self._cluster.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=180s", timeout=190)
        wait_until(
            lambda: self.ask("state")["open"] == CLIENTS, "all clients are in their rooms", 180, every=LOOK_AGAIN
        )

    def stop(self) -> None:
        self._cluster.kubectl("delete", f"pod/{NAME}", "--wait=true", timeout=90)

    def ask(self, word: str) -> dict[str, Any]:
        """`state`, `begin` or `settle`."""
        answer = self._cluster.kubectl(
            "exec", NAME, f"--container={NAME}", "--", "python", "-m", PROGRAM, "ask", word, timeout=ASK_TIMEOUT
        )
        print(f"{word}: {answer.strip()}")
        told: dict[str, Any] = json.loads(answer)
        return told


def troubles(told: dict[str, Any], moves: int = 0) -> list[str]:
    """What a verdict says that must not be after something that users should not notice; none: all is well.

    `moves`: most reconnects of one client, where most have one at most; zero: not looked at."""
    found = []
    if told["flaws"]:
        found.append(told["summary"])
    if told["rooms_that_lost_their_history"]:
        found.append(f"{told['rooms_that_lost_their_history']} rooms lost their history")
    if told["refused"]:
        found.append(f"{told['refused']} publications were refused")
    if told["closes_without_a_frame"]:
        found.append(f"{told['closes_without_a_frame']} connections ended without a close frame: {told['closes']}")
    if told["stopped"]:
        found.append(f"clients were told not to come back: {told['stopped']}")
    if moves and (told["moves_median"] > 1 or told["moves_most"] > moves):
        found.append(f"clients moved {told['moves_median']:g} times (median), {told['moves_most']} at most")
    return found


def unevenness(pods: dict[str, int], count: int) -> float:
    """Most clients of a pod, by the average of so many pods; 1: all have the same."""
    return max(pods.values(), default=0) * count / max(1, sum(pods.values()))
