"""An edge as images run it: nginx/entrypoint.sh with CARILLON_EDGE_... in its environment, on free ports."""

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from signal import SIGQUIT, Signals
from typing import Any, Self

import httpx

from local import probes, servers
from local.child import Child, Service, stop
from local.ports import HOST, free_ports
from tests.support.http_server import SilentHandler, serving_in_thread
from tests.support.waiting import wait_until

NGINX = Path(__file__).resolve().parents[2] / "nginx"


class Edge:
    """`with Edge(folder, GATEWAYS="127.0.0.1:8000") as edge: ...`; settings by the ends of their names."""

    def __init__(
        self,
        folder: Path,
        *,
        path: str = os.environ.get("PATH", os.defpath),
        within: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """`within`: a command that starts it, in namespaces of its own for instance."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.status_port = free_ports(2)
        self.url = f"http://{HOST}:{self.port}"
        self.ws_url = f"ws://{HOST}:{self.port}"
        self.run = folder / "run"
        defaults = {"NGINX": servers.nginx(), "HOST": HOST, "PORT": str(self.port), "RUN": str(self.run)}
        more = {"STATUS_PORT": str(self.status_port), "DRAIN_DELAY": "0", **settings}
        self.environ = {"PATH": path, **environment({**defaults, **more})}
        self._child = Child(
            Service(
                name=folder.name,
                command=(*within, "sh", str(NGINX / "entrypoint.sh")),
                log=folder / "log",
                env=self.environ,
                is_ready=lambda: probes.http_status(self.status_port, "/healthz") == 200,
                stop_signal=SIGQUIT,
            )
        )

    def __enter__(self) -> Self:
        self._child.start()
        try:
            wait_until(lambda: self._child.service.is_ready() or not self._child.running, "Nginx answers")
            assert self._child.running, self.log
        except BaseException:
            stop([self._child])
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._child])

    @property
    def pid(self) -> int:
        """Of the entrypoint, which leads a session of its own."""
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def log(self) -> str:
        return self._child.log_tail(10_000)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What the access log says."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def id(self) -> str:
        return (self.run / "edge-id").read_text().strip()

    def signal(self, number: Signals) -> None:
        """To the entrypoint, as a container's runtime does."""
        self._child.signal(number)

    def wait(self, timeout: float) -> int:
        """The exit code."""
        return self._child.wait(timeout)

    def script(self, name: str, *, path: Path | None = None, **settings: str) -> "subprocess.Popen[str]":
        """Starts nginx/drain.sh or nginx/reload.sh beside it, in the same environment but for these settings.

        `path`: a folder with the only commands that it has."""
        environ = self.environ | environment(settings) | ({"PATH": str(path)} if path else {})
        return subprocess.Popen(["sh", str(NGINX / name)], env=environ, stderr=subprocess.PIPE, text=True)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Without authorities, which take longer to read than the answer."""
        return httpx.get(self.url + path, trust_env=False, verify=False, **options)

    def status(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{HOST}:{self.status_port}{path}", trust_env=False, verify=False)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"CARILLON_EDGE_{name}": value for name, value in settings.items()}


class StandIn:
    """An HTTP server on a free port, in the place of a gateway."""

    def __init__(self, handler: type[SilentHandler]) -> None:
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._serving = serving_in_thread(self._server)
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)


class Answering(StandIn):
    """In the place of a gateway: answers all with one status, keeps what asks for `/ws/held` waiting for the end."""

    def __init__(self, status: int) -> None:
        over = self._over = threading.Event()

        class Answer(SilentHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                if status == 200 and self.path == "/ws/held":
                    self.wfile.flush()
                    over.wait()

        super().__init__(Answer)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        super().__exit__()


class Fainting(StandIn):
    """In the place of a gateway: ends so many connections without an answer, and answers the others with 200."""

    def __init__(self, faints: int) -> None:
        self.methods = methods = list[str]()

        class Answer(SilentHandler):
            def do_GET(self) -> None:
                methods.append(self.command)
                if len(methods) > faints:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

            do_POST = do_GET

        super().__init__(Answer)


class Listener(StandIn):
    """In the place of a gateway's internal port: keeps the request lines that it hears, and says nothing."""

    def __init__(self) -> None:
        self.lines = lines = list[str]()

        class Keep(SilentHandler):
            def do_POST(self) -> None:
                lines.append(self.requestline)
                self.send_response(204)
                self.end_headers()

        super().__init__(Keep)
