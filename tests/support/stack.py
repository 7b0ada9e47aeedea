"""A whole stack for tests: Valkey, pods and Nginx on free ports of this machine, gone afterwards whatever happens.

Everything here blocks for milliseconds (starting: seconds), also in async tests: nothing here needs the test's loop."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey

from local.child import Child, stop
from local.ports import HOST, free_ports
from local.stack import POD_COMMAND, Pod, plan
from tests.support.waiting import wait_until

SECRET = "a-secret-of-the-tests-that-is-long-enough"
API_KEY = "an-api-key-of-the-tests"

#: In the place of a real pod: starts in 0.2 s and says what it was sent.
STANDIN = (sys.executable, str(Path(__file__).with_name("standin_pod.py")))


class Logged(Protocol):
    """What runs and has logs."""

    def log_tails(self, lines: int = 30) -> list[tuple[str, str]]: ...


#: What runs now; the ends of its logs are shown with a failure.
running: list[Logged] = []

_OF_THE_DEVELOPER = ("WEB_CONCURRENCY", "PORT")


class Stack:
    """`with Stack(folder, pods=2, env={"CARILLON_MAX_CONNECTIONS": "3"}) as stack: ...`

    `env` is added to the pods' environment; without `nginx`, `url` is the first pod itself. `late`: pods that wait for
    `start_pod`."""

    def __init__(
        self,
        folder: Path,
        *,
        pods: int = 2,
        late: Collection[int] = (),
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        env_of_pod: Mapping[int, Mapping[str, str]] | None = None,  # added to one pod's own
        nginx: bool = True,
        valkey_options: Sequence[str] = (),
        pod_command: Sequence[str] = POD_COMMAND,
        edge_settings: Mapping[str, str] | None = None,  # CARILLON_EDGE_..., by the name's end
    ) -> None:
        port = free_ports(1)[0] if nginx else None
        environ = hermetic_environment() | {"WEB_CONCURRENCY": str(workers), **(env or {})}
        planned = plan(
            folder,
            port=port,
            pods=pods,
            environ=environ,
            pod_command=pod_command,
            valkey_options=valkey_options,
            edge_settings=edge_settings or {},
        )
        self.plan = dataclasses.replace(planned, pods=_with_own_env(planned.pods, env_of_pod or {}))
        self.folder = folder
        self.port = port or self.plan.pods[0].public_port
        self.url = f"http://{HOST}:{self.port}"
        self.ws_url = f"ws://{HOST}:{self.port}"
        self.pods: Sequence[Pod] = self.plan.pods
        self._pods = [Child(pod.service) for pod in self.pods]
        self._late = set(late)
        self._valkey = Child(self.plan.valkey) if self.plan.valkey else None
        self._edge = Child(self.plan.edge) if self.plan.edge else None
        api = self.url if nginx else self.pods[0].internal_url
        self._api = httpx.Client(base_url=api, headers={"X-API-Key": API_KEY}, timeout=10, trust_env=False)

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Returns when everything serves. Raises AssertionError with the logs of what does not."""
        running.append(self)
        try:
            for child in self._children:
                child.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything, in the same order as `make run`."""
        self._api.close()
        front = [self._edge] if self._edge else []
        try:
            stop([*front, *self._started])
        finally:
            stop([self._valkey] if self._valkey else [])
            running.remove(self)

    def wait_ready(self, timeout: float = 30) -> None:
        """Waits until every server answers as a ready one."""
        deadline = time.monotonic() + timeout
        for child in self._children:
            while not child.service.is_ready():
                assert child.running, f"{child.service.name} ended with {child.wait()}:\n{child.log_tail(40)}"
                assert time.monotonic() < deadline, f"{child.service.name} is not ready:\n{child.log_tail(40)}"
                time.sleep(0.05)

    @property
    def _children(self) -> list[Child]:
        return [child for child in (self._valkey, *self._started, self._edge) if child]

    @property
    def _started(self) -> list[Child]:
        return [child for number, child in enumerate(self._pods, 1) if number not in self._late]

    # Use

    def token(
        self, user: str = "ann", rooms: Sequence[str] = ("*",), publish: Sequence[str] = ("*",), ttl: float = 3600
    ) -> str:
        """A token as an application's backend would sign it (HS256)."""
        claims: dict[str, Any] = {"sub": user, "rooms": list(rooms), "publish": list(publish)}
        claims["exp"] = int(time.time() + ttl)
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))

    def post(self, path: str, body: Any) -> httpx.Response:
        """A call of the server API with its key, e.g. `stack.post("/api/tickets", {...})`."""
        return self._api.post(path, json=body)

    def publish(self, room: str, data: Any, **fields: Any) -> dict[str, Any]:
        """Publishes over HTTP; returns `{"epoch", "offset"}`."""
        answer = self.post("/api/publish", {"room": room, "data": data, **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    # Breaking things; pods are numbered from 1

    def pod_pid(self, pod: int = 1) -> int:
        """The process id of a pod's gunicorn master."""
        return self._pods[pod - 1].pid

    def worker_pids(self, pod: int = 1) -> list[int]:
        """The process ids of a pod's workers, oldest first."""
        return _children_of(self.pod_pid(pod))

    def kill_worker(self, pod: int = 1, index: int = 0) -> int:
        """Kill -9 of one worker; returns its process id. Gunicorn starts another one."""
        pid = self.worker_pids(pod)[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def signal_pod(self, pod: int, number: signal.Signals) -> None:
        """Signals a pod's master, e.g. SIGTERM: drain."""
        self._pods[pod - 1].signal(number)

    def pod_running(self, pod: int) -> bool:
        return self._pods[pod - 1].running

    def start_pod(self, pod: int) -> None:
        """Starts a pod that has ended, on its old ports; `wait_ready` waits for it."""
        child = self._pods[pod - 1]
        self._late.discard(pod)
        assert not child.running, f"pod {pod} runs already"
        child.sweep()
        child.start()

    def stop_pod(self, pod: int) -> None:
        """Drains and ends a pod; it waits for `start_pod`."""
        stop([self._pods[pod - 1]])
        self._late.add(pod)

    def kill_pod(self, pod: int) -> None:
        """Kill -9 of all of its processes."""
        self._pods[pod - 1].sweep()
        self._pods[pod - 1].wait()

    def reload_nginx(self) -> None:
        assert self._edge, "this stack has no Nginx"
        self._edge.signal(signal.SIGHUP)

    def nginx_workers(self) -> list[int]:
        """Process ids; after a reload also of those that only keep old connections."""
        assert self._edge, "this stack has no Nginx"
        return _children_of(self._edge.pid)

    def stop_valkey(self) -> None:
        """Kill -9: nothing is saved, connections break."""
        assert self._valkey, "this stack has no Valkey of its own"
        self._valkey.sweep()
        self._valkey.wait()

    def start_valkey(self) -> None:
        """Starts Valkey, empty, on its old port, and waits until it answers."""
        assert self._valkey, "this stack has no Valkey of its own"
        self._valkey.start()
        wait_until(self._valkey.service.is_ready, "Valkey answers")

    def restart_valkey(self) -> None:
        self.stop_valkey()
        self.start_valkey()

    # Looking

    @property
    def redis_url(self) -> str:
        return self.plan.redis_url

    def log(self, name: str) -> str:
        """The whole log of `pod-1`, `nginx`, `valkey` or `access` (Nginx's access log)."""
        file = self.folder / f"{name}.log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def log_tails(self, lines: int = 30) -> list[tuple[str, str]]:
        return [(child.service.name, child.log_tail(lines)) for child in self._children]


StackFactory = Callable[..., Stack]


def hermetic_environment() -> dict[str, str]:
    """This process's environment without what a developer has set for a gateway, but for the choice of servers."""
    kept = ("CARILLON_NGINX", "CARILLON_VALKEY")
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in kept or (not name.startswith("CARILLON_") and name not in _OF_THE_DEVELOPER)
    }
    return environ | {"CARILLON_TOKEN_HMAC_SECRET": SECRET, "CARILLON_API_KEYS": API_KEY}


def _with_own_env(pods: Sequence[Pod], env_of_pod: Mapping[int, Mapping[str, str]]) -> list[Pod]:
    made = []
    for pod in pods:
        env = {**pod.service.env, **env_of_pod.get(pod.number, {})}
        made.append(dataclasses.replace(pod, service=dataclasses.replace(pod.service, env=env)))
    return made


def _children_of(pid: int) -> list[int]:
    told = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return sorted(int(child) for child in told.stdout.split())
