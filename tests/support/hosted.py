"""A small application for tests of the hosting, and the way to start it under a real gunicorn.

It stands in for the gateway: it keeps WebSockets open, says goodbye to them in a drain, and beats its slot.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def create_app() -> Any:
    """The application; runs in the workers only, as it makes metrics."""
    from fastapi import FastAPI, WebSocket

    from app.http import health
    from app.http import metrics as metrics_route
    from app.server.pod import State, own_slot
    from app.telemetry import metrics

    class Gateway:
        def __init__(self) -> None:
            self.sockets: set[WebSocket] = set()
            self.draining = False

        async def drain(self, timeout: float) -> None:
            self.draining = True
            for websocket in list(self.sockets):
                await websocket.send_text("goodbye")
                await websocket.close(3001)
            if os.environ.get("STUBBORN"):
                await asyncio.sleep(3600)

    time.sleep(float(os.environ.get("BOOT_SECONDS", "0")))
    if os.path.exists(os.environ.get("BROKEN", "")):
        raise RuntimeError("cannot boot")
    slot = own_slot()
    gateway = Gateway()
    slow_requests = 0

    async def live() -> None:
        while True:
            slot.beat(State.READY)
            metrics.CONNECTIONS.set(len(gateway.sockets))
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        task = asyncio.create_task(live())
        yield {"gateway": gateway}
        task.cancel()

    app = FastAPI(lifespan=lifespan)
    app.state.slot = slot
    app.include_router(health.router)
    app.include_router(metrics_route.router)

    @app.get("/who")
    async def who() -> dict[str, Any]:
        import resource

        metrics.HTTP_REQUESTS.labels("/who", "200").inc()
        return {
            "pid": os.getpid(),
            "slot": slot.index,
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "slow": slow_requests,
        }

    @app.get("/slow")
    async def slow(seconds: float) -> dict[str, str]:
        nonlocal slow_requests
        slow_requests += 1
        await asyncio.sleep(seconds)
        return {"slept": str(seconds)}

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        if gateway.draining:
            await websocket.close()
            return
        await websocket.accept()
        gateway.sockets.add(websocket)
        try:
            async for text in websocket.iter_text():
                await websocket.send_text(text)
        finally:
            gateway.sockets.discard(websocket)

    @app.websocket("/address")
    async def address(websocket: WebSocket) -> None:
        await websocket.accept()
        assert websocket.client is not None
        await websocket.send_text(websocket.client.host)
        await websocket.close()

    return app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(condition: Callable[[], Any], within: float = 10.0) -> Any:
    """The first true result of `condition`; connection errors count as false."""
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
            if last:
                return last
        except OSError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {last!r}")


class Pod:
    """One gunicorn with this file's application. Use as a context manager: nothing is left behind."""

    def __init__(
        self,
        workers: int = 1,
        app: str = "tests.support.hosted:create_app()",
        preexec: Any = None,
        arguments: Sequence[str] = (),
        **environ: str,
    ) -> None:
        self.port = free_port()
        self.internal = free_port()
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")} | {
            "CARILLON_BIND_HOST": "127.0.0.1",
            "CARILLON_PUBLIC_PORT": str(self.port),
            "CARILLON_INTERNAL_PORT": str(self.internal),
            "CARILLON_REDIS_URL": "redis://127.0.0.1:1",
            "WEB_CONCURRENCY": str(workers),
        }
        self.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self.environ |= environ
        self.app = app
        self.workers = workers
        self._arguments = arguments
        self._preexec = preexec

    def __enter__(self) -> "Pod":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:app.server.gunicorn_conf", *self._arguments, self.app],
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=self._preexec,
            start_new_session=True,  # so that a group of our own is all that __exit__ ends
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its session began with it: master and workers, nobody else
        self.process.communicate()
        shutil.rmtree(Path("/dev/shm") / f"carillon-{os.geteuid()}-{self.port}", ignore_errors=True)

    def ready(self) -> "Pod":
        eventually(lambda: self.get("/readyz")[0] == 200, within=20)
        return self

    def get(self, path: str, timeout: float = 2.0) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def worker_pids(self) -> list[int | None]:
        """By slot, as the pod says it. Not to be signalled: see `signal_worker`."""
        return [worker["pid"] for worker in self.json("/readyz")["workers"]]

    def signal_worker(self, slot: int, sig: signal.Signals) -> int:
        """Signals the worker in this slot, if it really is a child of this pod's master; its process id."""
        pid = self.worker_pids()[slot]
        assert pid is not None
        assert pid in self.children()
        os.kill(pid, sig)
        return pid

    def children(self) -> list[int]:
        """The master's children, as the kernel knows them."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        return [int(pid) for pid in text.split()]

    def metric(self, name: str) -> float:
        """The value of the first sample with that name, and labels if it names some."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name) and line[len(name)] in "{ ":
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    def logged(self, event: str) -> dict[str, Any]:
        """Reads the log up to the first line with these words."""
        assert self.process.stdout is not None
        line: dict[str, Any]
        for line in map(json.loads, self.process.stdout):
            if event in line["event"]:
                return line
        raise AssertionError(f"never logged: {event}")

    def end(self, sig: int = signal.SIGTERM, within: float = 10) -> tuple[int, float, list[dict[str, Any]], str]:
        """Signals the master: its exit code, how long it took, its log lines and what it said on stderr."""
        started = time.monotonic()
        self.process.send_signal(sig)
        out, err = self.process.communicate(timeout=within)
        return self.process.returncode, time.monotonic() - started, [json.loads(line) for line in out.splitlines()], err


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
