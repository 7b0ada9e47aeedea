"""What the stack is made of: which servers, on which ports, with which settings."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGQUIT
from types import MappingProxyType

from local import nginx, probes, servers
from local.child import Service
from local.errors import LocalError
from local.ports import HOST, free_ports
from local.secrets import is_dev

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "app" / "http" / "demo" / "static"

#: Seconds that a pod of the local stack may take for its goodbyes (N5: `make run` drains within 3 s).
DRAIN_TIMEOUT = "2"

#: Seconds that gunicorn and its end may take after the drain before a pod is killed (app/hosting.py).
STOP_MARGIN = 6

#: What pods must not share (N10); each makes its own.
_OF_ONE_POD = ("PROMETHEUS_MULTIPROC_DIR", "GUNICORN_CMD_ARGS")

#: The gateway as it is hosted anywhere.
POD_COMMAND = (sys.executable, "-m", "app", "serve")


@dataclass(frozen=True)
class Pod:
    """One gunicorn and its two ports (N7)."""

    number: int
    public_port: int
    internal_port: int
    service: Service

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.public_port}"

    @property
    def internal_url(self) -> str:
        return f"http://{HOST}:{self.internal_port}"


@dataclass(frozen=True)
class Stack:
    """A planned stack; nothing runs yet. `valkey` is None where another broker is named, `edge` where none is."""

    pods: Sequence[Pod]
    redis_url: str
    valkey: Service | None
    edge: Service | None

    @property
    def stages(self) -> list[list[Service]]:
        """In the order of ending. Nginx stops listening first, stays for the pods' goodbyes, and ends with them."""
        front = [self.edge] if self.edge else []
        return [[*front, *(pod.service for pod in self.pods)], [self.valkey] if self.valkey else []]


def plan(
    folder: Path,
    *,
    port: int | None,
    pods: int,
    environ: Mapping[str, str],
    pod_command: Sequence[str] = POD_COMMAND,
    valkey_options: Sequence[str] = (),
    edge_settings: Mapping[str, str] = MappingProxyType({}),
) -> Stack:
    """Chooses ports and servers and writes the configuration into `folder`, where logs go too.

    `port` None: no edge. `environ` is what the pods get, with the local defaults filled in. Raises LocalError."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        log.unlink()
    valkey_port, *pod_ports = free_ports(1 + 2 * pods)
    redis_url = environ.get("CARILLON_REDIS_URL", "")
    valkey = None if redis_url else _valkey(folder, valkey_port, environ, valkey_options)
    redis_url = redis_url or f"redis://{HOST}:{valkey_port}"
    common = {
        "CARILLON_DEV": "1",
        "CARILLON_DRAIN_DELAY": "0",
        "CARILLON_DRAIN_TIMEOUT": DRAIN_TIMEOUT,
        "WEB_CONCURRENCY": "2",
        **{name: value for name, value in environ.items() if name not in _OF_ONE_POD},
        "CARILLON_BIND_HOST": HOST,
        "CARILLON_REDIS_URL": redis_url,
    }
    made = [
        _pod(folder, number, pod_ports[2 * number - 2], pod_ports[2 * number - 1], common, pod_command)
        for number in range(1, pods + 1)
    ]
    edge = nginx.Edge(
        host=HOST,
        port=port or 0,
        public=[f"{HOST}:{pod.public_port}" for pod in made],
        internal=[f"{HOST}:{pod.internal_port}" for pod in made],
        app_dir=environ.get("CARILLON_APP_DIR", ""),
        demo_dir=str(DEMO) if is_dev(environ) else "",
        settings=edge_settings,
    )
    return Stack(made, redis_url, valkey, _edge(folder, port, edge, environ) if port else None)


def _pod(
    folder: Path, number: int, public: int, internal: int, common: Mapping[str, str], command: Sequence[str]
) -> Pod:
    service = Service(
        name=f"pod-{number}",
        command=tuple(command),
        log=folder / f"pod-{number}.log",
        env={
            **common,
            "CARILLON_POD_NAME": f"pod-{number}",
            "CARILLON_PUBLIC_PORT": str(public),
            "CARILLON_INTERNAL_PORT": str(internal),
        },
        folder=ROOT,
        is_ready=lambda: probes.http_status(internal, "/readyz") == 200,
        patience=_seconds(common, "CARILLON_DRAIN_DELAY") + _seconds(common, "CARILLON_DRAIN_TIMEOUT") + STOP_MARGIN,
    )
    return Pod(number, public, internal, service)


def _seconds(environ: Mapping[str, str], name: str) -> float:
    try:
        return float(environ[name])
    except ValueError:
        raise LocalError(f"{name}={environ[name]} must be a number of seconds.") from None


def _valkey(folder: Path, port: int, environ: Mapping[str, str], options: Sequence[str]) -> Service:
    """Keeps nothing on disk: a development stack starts empty."""
    settings = ("--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", "", "--appendonly", "no")
    return Service(
        name="valkey",
        command=(servers.valkey(environ), *settings, *options),
        log=folder / "valkey.log",
        env={"PATH": environ.get("PATH", "")},
        folder=folder,
        is_ready=lambda: probes.redis_answers(port),
    )


def _edge(folder: Path, port: int, edge: nginx.Edge, environ: Mapping[str, str]) -> Service:
    binary = servers.nginx(environ)
    config = nginx.write(edge, folder, binary)
    return Service(
        name="nginx",
        command=(binary, "-p", str(folder), "-c", str(config), "-e", "stderr", "-g", "daemon off;"),
        log=folder / "nginx.log",
        folder=folder,
        is_ready=lambda: probes.http_status(port, "/healthz") == 200,
        stop_signal=SIGQUIT,
    )
