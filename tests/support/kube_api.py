"""A small Kubernetes API server of the tests: it lists pods and takes patches over TLS, as a service account asks it,
and answers wrongly when told to. The pods' metrics are on an own port of plain HTTP each."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.certificates import signed_by_an_authority
from tests.support.http_server import SilentHandler, serving_in_thread

NAMESPACE = "rooms"
TOKEN = "the-token-of-the-account"
LIST, PATCH = "GET", "PATCH"


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, str]
    kind: str
    body: Any


@dataclass
class Answer:
    """What is answered in the place of what would be right."""

    status: int
    body: bytes = b""

    @classmethod
    def refusal(cls, status: int, message: str) -> "Answer":
        """As the API server words it."""
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
        return cls(status, json.dumps(told).encode())


class FakePod:
    """A gateway pod's metrics, on a port of its own."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.address = "127.0.0.1"
        self.phase = "Running"
        self.annotations: dict[str, str] = {}
        self.terminating = False
        self.metrics = Answer(200)

    def has(self, connections: float) -> None:
        text = f"# TYPE carillon_connections gauge\ncarillon_connections {connections}\n"
        self.metrics = Answer(200, text.encode())

    def manifest(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self.name, "namespace": NAMESPACE, "annotations": self.annotations}
        if self.terminating:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        ports = [{"name": "public", "containerPort": 1}, {"name": "internal", "containerPort": self.port}]
        return {
            "metadata": metadata,
            "spec": {"nodeName": "n1", "containers": [{"name": "gateway", "ports": ports}]},
            "status": {"phase": self.phase, **({"podIP": self.address} if self.address else {})},
        }


@dataclass
class KubeApiServer:
    """`host` and `port` are what Kubernetes puts into the environment; `account` is the folder that it mounts."""

    port: int
    account: Path
    pods: list[FakePod]
    host: str = "127.0.0.1"
    token: str = TOKEN
    asked: list[Asked] = field(default_factory=list)
    #: By method; instead of the right answer, until taken away.
    instead: dict[str, Answer] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBERNETES_SERVICE_HOST": self.host, "KUBERNETES_SERVICE_PORT": str(self.port)}

    def costs(self) -> dict[str, str | None]:
        return {pod.name: pod.annotations.get("controller.kubernetes.io/pod-deletion-cost") for pod in self.pods}

    def patched(self) -> list[str]:
        """The pods that were patched, in order."""
        return [asked.path.rpartition("/")[2] for asked in self.asked if asked.method == PATCH]

    def answer(self, asked: Asked, authorization: str | None) -> Answer:
        self.asked.append(asked)
        if authorization != f"Bearer {self.token}":
            return Answer.refusal(401, "Unauthorized")
        if asked.method in self.instead:
            return self.instead[asked.method]
        root = f"/api/v1/namespaces/{NAMESPACE}/pods"
        if asked.method == LIST and asked.path == root:
            return Answer(200, json.dumps({"kind": "PodList", "items": [one.manifest() for one in self.pods]}).encode())
        for pod in self.pods:
            if asked.method == PATCH and asked.path == f"{root}/{pod.name}":
                pod.annotations |= asked.body["metadata"]["annotations"]
                return Answer(200, json.dumps(pod.manifest()).encode())
        return Answer.refusal(404, f'"{asked.path}" not found')


@contextmanager
def kube_api(folder: Path, pods: int = 2) -> Iterator[KubeApiServer]:
    """Serves until the end of the block, with so many pods called `pod-1`, ... that have no connections."""
    folder.mkdir(exist_ok=True)
    ca = signed_by_an_authority(folder / "tls")
    account = folder / "account"
    account.mkdir()
    _write_account(account, ca)
    with ExitStack() as opened:
        made = []
        for number in range(1, pods + 1):
            metrics = opened.enter_context(serving_in_thread(_Server(("127.0.0.1", 0), _Metrics)))
            metrics.owner = FakePod(f"pod-{number}", metrics.server_port)
            metrics.owner.has(0)
            made.append(metrics.owner)
        api = _Server(("127.0.0.1", 0), _Api)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca.with_name("server.pem"), ca.with_name("key.pem"))
        api.socket = context.wrap_socket(api.socket, server_side=True)
        opened.enter_context(serving_in_thread(api))
        api.owner = KubeApiServer(api.server_port, account, made)
        yield api.owner


def _write_account(account: Path, ca: Path) -> None:
    files: Mapping[str, bytes] = {
        "token": TOKEN.encode(),
        "namespace": NAMESPACE.encode(),
        "ca.crt": ca.read_bytes(),
    }
    for name, content in files.items():
        (account / name).write_bytes(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: Any

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the midst is none."""


class _Handler(SilentHandler):
    server: _Server

    def give(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


class _Metrics(_Handler):
    def do_GET(self) -> None:
        self.give(self.server.owner.metrics if self.path == "/metrics" else Answer(404))


class _Api(_Handler):
    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        kind = self.headers.get("Content-Type", "")
        asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), kind, json.loads(body) if body else None)
        self.give(self.server.owner.answer(asked, self.headers.get("Authorization")))
