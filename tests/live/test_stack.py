"""`make run` and what it ends in, `python -m local`: real pods, a real Valkey, a real Nginx."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from local.ports import free_ports
from tests.support.stack import API_KEY, hermetic_environment
from tests.support.waiting import until, wait_until

ROOT = Path(__file__).parents[2]


class Running:
    """A stack that was started as a person starts it, and what it printed."""

    def __init__(self, command: list[str], folder: Path, output: Path, environ: dict[str, str]) -> None:
        self.port = int(environ["PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = folder / ".local" / str(self.port)
        self._output = output
        self._descendants: set[int] = set()
        with output.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_ready(self, timeout: float = 50) -> None:
        wait_until(lambda: "Ctrl-C stops it." in self.output or self.process.poll() is not None, "ready", timeout)
        assert self.process.poll() is None, self.output
        self._descendants = descendants(self.process.pid)

    def line(self, name: str) -> str:
        """One of the three lines to copy."""
        found = re.search(rf"^{name}: +(.*)$", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    @property
    def token(self) -> str:
        return self.line("Subscribe").split()[-1]

    def left_behind(self) -> set[int]:
        """Processes of the stack that still run."""
        return {pid for pid in self._descendants if alive(pid)}

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
            shutil.rmtree(self.state, ignore_errors=True)


def descendants(pid: int) -> set[int]:
    told = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    children = {int(child) for child in told.split()}
    return children.union(*(descendants(child) for child in children))


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m local`, small unless told otherwise."""
    started: list[Running] = []

    def run(**environ: str) -> Running:
        small = {"PORT": str(free_ports(1)[0]), "CARILLON_PODS": "1", "WEB_CONCURRENCY": "1"}
        command = [sys.executable, "-m", "local"]
        started.append(Running(command, ROOT, tmp_path / "output", hermetic_environment() | small | environ))
        return started[-1]

    yield run
    for one in started:
        one.close()


async def client(stack: Running) -> ClientConnection:
    socket = await connect(
        f"ws://127.0.0.1:{stack.port}/ws/chat:lobby", additional_headers={"Authorization": f"Bearer {stack.token}"}
    )
    assert json.loads(await socket.recv())["type"] == "welcome"
    assert json.loads(await socket.recv())["room"] == "chat:lobby"
    return socket


async def last_words(socket: ClientConnection) -> tuple[str, int | None]:
    """The last message of a server and its close code."""
    last = ""
    try:
        while True:
            last = json.loads(await socket.recv())["type"]
    except ConnectionClosed:
        return last, socket.close_code


def test_the_three_lines_work_as_printed(start: Start, tmp_path: Path) -> None:
    stack = start()
    stack.wait_ready()
    heard = tmp_path / "heard"
    with heard.open("w") as out:
        subscriber = subprocess.Popen(shlex.split(stack.line("Subscribe")), cwd=ROOT, stdout=out)
    try:
        wait_until(lambda: '"ok"' in heard.read_text(), "subscribed")
        published = subprocess.run(shlex.split(stack.line("Publish")), capture_output=True, text=True, check=True)
        assert json.loads(published.stdout).keys() == {"epoch", "offset"}, published.stdout
        wait_until(lambda: '"data": "hello"' in heard.read_text(), "the publication came")
    finally:
        subscriber.send_signal(signal.SIGINT)
        subscriber.wait(5)
    assert "text/html" in httpx.get(stack.line("Demo"), trust_env=False).headers["Content-Type"]
    assert f"X-API-Key: {API_KEY}" in stack.line("Publish")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_end_is_a_goodbye_to_everybody_and_leaves_nothing(start: Start, number: signal.Signals) -> None:
    stack = start(CARILLON_PODS="2", WEB_CONCURRENCY="2")
    stack.wait_ready()
    sockets = [await client(stack) for _ in range(20)]
    began = monotonic()
    stack.process.send_signal(number)
    assert await asyncio.gather(*map(last_words, sockets)) == [("goodbye", 3001)] * 20
    await until(lambda: stack.process.poll() is not None, "the end")
    assert monotonic() - began < 10
    assert stack.process.returncode == 0
    assert stack.left_behind() == set()


async def test_a_killed_pod_comes_back_and_one_line_says_so(start: Start) -> None:
    stack = start()
    stack.wait_ready()
    socket = await client(stack)
    [master] = [pid for pid in descendants(stack.process.pid) if "gunicorn" in command_of(pid) and is_leader(pid)]
    os.kill(master, signal.SIGKILL)
    await last_words(socket)
    await until(lambda: httpx_status(f"{stack.url}/readyz") == 200, "ready again", 20)
    assert [line for line in stack.output.splitlines() if line.startswith("pod-1 was killed by SIGKILL; starting it")]
    await (await client(stack)).close()


def command_of(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def is_leader(pid: int) -> bool:
    return os.getsid(pid) == pid


def httpx_status(url: str) -> int:
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_supervisor_leaves_nothing_behind(start: Start) -> None:
    stack = start(CARILLON_PODS="2")
    stack.wait_ready()
    stack.process.kill()
    wait_until(lambda: not stack.left_behind(), "everything is gone")


def test_a_taken_port_is_one_line(start: Start) -> None:
    first = start()
    first.wait_ready()
    command = [sys.executable, "-m", "local"]
    environ = hermetic_environment() | {"PORT": str(first.port)}
    second = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert (
        second.stderr == f"Port {first.port} on 127.0.0.1 is taken or not allowed; choose another one with PORT=...\n"
    )
    assert httpx_status(f"{first.url}/readyz") == 200


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PORT": "http"}, "PORT=http must be a number from 1 to 65535."),
        ({"CARILLON_PODS": "0"}, "CARILLON_PODS=0 must be a number from 1 to 64."),
        ({"CARILLON_NGINX": "/nowhere"}, "CARILLON_NGINX=/nowhere is not a nginx that runs"),
        ({"CARILLON_NAMESPACE": "x"}, "CARILLON_NAMESPACE: no such setting"),
        ({"CARILLON_DRAIN_TIMEOUT": "soon"}, "CARILLON_DRAIN_TIMEOUT=soon must be a number of seconds"),
    ],
)
def test_wrong_settings_are_said_without_a_traceback(environ: dict[str, str], says: str) -> None:
    port = {"PORT": str(free_ports(1)[0])}
    command = [sys.executable, "-m", "local"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=hermetic_environment() | port | environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    shutil.rmtree(ROOT / ".local" / port["PORT"], ignore_errors=True)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_valkey_is_started_where_a_broker_is_named(start: Start) -> None:
    stack = start(CARILLON_REDIS_URL="memory://")
    stack.wait_ready()
    assert not (stack.state / "valkey.log").exists()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_make_run_in_a_clean_clone(tmp_path: Path) -> None:
    """Nothing but the repository, `make` and a Python; the second start installs nothing."""
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    needed = ("PATH", "HOME", "PYTHON", "CARILLON_NGINX", "CARILLON_VALKEY")
    environ = {name: value for name, value in os.environ.items() if name in needed or name.startswith(("PIP_", "SSL_"))}
    installed = []
    for start in ("first", "second"):
        environ["PORT"] = str(free_ports(1)[0])
        stack = Running(["make", "run"], clone, tmp_path / f"output-{start}", environ)
        try:
            stack.wait_ready(240)
            installed.append({path: path.stat().st_ctime_ns for path in (clone / ".venv").rglob("*.py")})
            assert "'X-API-Key: dev-" in stack.line("Publish")
            stack.process.terminate()  # to make, which passes it on to the last line of the recipe
            wait_until(lambda stack=stack: not stack.left_behind(), "everything is gone")
        finally:
            stack.close()
    assert installed[0] == installed[1]
    assert (clone / ".local" / "secrets.json").stat().st_mode & 0o777 == 0o600
