"""An edge goes: everybody who came through it is told, at a pace, comes back through another one, and loses nothing."""

import asyncio
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signals
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import parts
from tests.support.client import Client, close_all, open_all
from tests.support.edge import NGINX, Edge, Listener
from tests.support.namespaces import in_own, in_those_of
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until, wait_until

CLIENTS = 500
LISTENERS = 50  # of them, who keep count
DRAIN = 4  # seconds
CLOSES = 0.75 * DRAIN  # of them; the last quarter is for what is unsent (O3)
WINDOWS = 6
ROOM = "kept:news"
ENV = {
    "CARILLON_NAMESPACES__KEPT__HISTORY_SIZE": "10000",
    "CARILLON_DRAIN_RATE": "0",
    "CARILLON_CONNECT_RATE": "0",
}


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("gateways"), nginx=False, env=ENV) as stack:
        yield stack


@pytest.fixture
def edges(gateways: Stack, tmp_path: Path) -> Iterator[tuple[Edge, Edge]]:
    with edge_before(gateways, tmp_path / "one") as one, edge_before(gateways, tmp_path / "other") as other:
        yield one, other


def edge_before(gateways: Stack, folder: Path) -> Edge:
    return Edge(
        folder,
        GATEWAYS=",".join(f"127.0.0.1:{pod.public_port}" for pod in gateways.pods),
        INTERNAL_GATEWAYS=",".join(f"127.0.0.1:{pod.internal_port}" for pod in gateways.pods),
        DRAIN_TIMEOUT=str(DRAIN),
    )


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Edge]:
    """An edge whose gateways are away."""
    with Edge(tmp_path / "edge", GATEWAYS="127.0.0.1:1", INTERNAL_GATEWAYS="127.0.0.1:1") as edge:
        yield edge


class Visitor:
    """Comes back through the other edge as soon as it is told, in a single attempt; a listener from where it was."""

    def __init__(self, gateways: Stack, number: int, edge: Edge, listens: bool = False) -> None:
        self._token = gateways.token(f"user-{number}")
        self._listens = listens
        self._position: dict[str, Any] | None = None
        self.client = Client(edge.ws_url, token=self._token)
        self.closes: list[tuple[int, float]] = []
        self.back: list[float] = []
        self.offsets: list[int] = []
        self.recovered = True

    async def enter(self) -> None:
        if self._listens:
            since = {"since": self._position} if self._position else {}
            reply = await self.client.ask("subscribe", room=ROOM, **since)
            self.recovered = self.recovered and reply.get("recovered", True)
            self._position = {"epoch": reply["epoch"], "offset": reply["offset"]}

    async def follow(self, other: Edge) -> None:
        now = asyncio.get_running_loop().time
        while True:
            code = await self.client.closed(timeout=60)
            self.closes.append((code, now()))
            self.note()
            self.client = Client(other.ws_url, token=self._token)
            await self.client.open()
            await self.enter()
            self.back.append(now())

    def note(self) -> None:
        heard = [event["offset"] for event in self.client.messages(ROOM)]
        self.offsets += heard
        if heard and self._position:
            self._position["offset"] = heard[-1]
        self.client.events.clear()


async def test_500_clients_of_an_edge_that_goes_move_evenly_to_the_other_and_lose_nothing(
    gateways: Stack, edges: tuple[Edge, Edge]
) -> None:
    one, other = edges
    moving = [Visitor(gateways, number, one, listens=number < LISTENERS) for number in range(CLIENTS)]
    staying = [Visitor(gateways, CLIENTS + number, other) for number in range(20)]
    await open_all([visitor.client for visitor in moving + staying])
    await asyncio.gather(*(visitor.enter() for visitor in moving))
    following = [asyncio.create_task(visitor.follow(other)) for visitor in moving + staying]
    enough = asyncio.Event()
    publishing = asyncio.create_task(publish_until(gateways, enough))

    drain = one.script("drain.sh")
    await until(lambda: not one.running or any(task.done() for task in following), "the edge ends", timeout=DRAIN + 20)
    assert (drain.wait(5), drain.communicate()[1]) == (0, "")
    await until(lambda: all(visitor.back for visitor in moving), "all are back", timeout=30)
    enough.set()
    last = await publishing
    listeners = moving[:LISTENERS]
    await until(lambda: all(visitor.client.messages(ROOM)[-1:] for visitor in listeners), "they hear again")
    await until(lambda: all(v.client.messages(ROOM)[-1]["offset"] == last for v in listeners), "the last one")
    await end(following)

    for visitor in moving:
        assert [code for code, _ in visitor.closes] == [3001], "each once, with a close frame that says: come back"
    assert not any(visitor.closes for visitor in staying)
    closes = [at for visitor in moving for _, at in visitor.closes]
    assert max(closes) - min(closes) > CLOSES / 2, "over the window, though the first may be late on a busy machine"
    windows = Counter(int((at - min(closes)) / CLOSES * WINDOWS) for at in closes)
    # How evenly: tests/unit/gateway/test_edges.py, where no busy machine holds the clients up.
    assert max(windows.values()) < CLIENTS / 2, "and never most of them at once"
    for visitor in listeners:
        visitor.note()
        assert visitor.recovered
        assert visitor.offsets == list(range(visitor.offsets[0], last + 1)), "nothing is lost, and nothing comes twice"
    await close_all([visitor.client for visitor in moving + staying])


async def publish_until(gateways: Stack, enough: asyncio.Event) -> int:
    """Returns the last offset."""
    number = 0
    while True:
        number += 1
        answer = await asyncio.to_thread(gateways.publish, ROOM, number)
        if enough.is_set():
            return int(answer["offset"])
        with suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), 0.05)


async def end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task  # raises what has kept it from coming back


async def test_nobody_new_comes_through_an_open_connection_to_an_edge_that_goes(
    gateways: Stack, edges: tuple[Edge, Edge]
) -> None:
    """As a load balancer keeps them. And who is connected still is served until its goodbye."""
    one, _ = edges
    async with httpx.AsyncClient(base_url=one.url, trust_env=False) as balancer:
        assert (await balancer.get("/nothing")).status_code == 404
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(connect(f"{one.ws_url}/ws", proxy=None))
            drain = one.script("drain.sh", INTERNAL_GATEWAYS="", DRAIN_TIMEOUT="30")
            await until(lambda: one.status("/readyz").status_code == 503, "it has begun")
            answer = await balancer.get("/nothing")
            assert (answer.status_code, answer.headers["Connection"]) == (503, "close")
            assert answer.headers["Retry-After"] == "1"
            with pytest.raises(InvalidStatus, match="503"):
                await connect(f"{one.ws_url}/ws", proxy=None)
            assert one.running
    assert drain.wait(10) == 0, "as nobody is connected any more"
    await until(lambda: not one.running, "the edge ends")


@pytest.mark.long
async def test_the_goodbyes_reach_every_worker_without_the_broker(make_stack: StackFactory, tmp_path: Path) -> None:
    stack = make_stack(nginx=False, env=ENV)
    with edge_before(stack, tmp_path / "edge") as edge:
        clients = [Client(edge.ws_url, token=stack.token(f"user-{number}")) for number in range(40)]
        await open_all(clients)
        assert len({client.welcome["node"] for client in clients}) == 4
        stack.stop_valkey()
        drain = edge.script("drain.sh", DRAIN_TIMEOUT="15")
        assert {await client.closed(timeout=20) for client in clients} == {3001}
        assert await asyncio.to_thread(drain.wait, 20) == 0


async def test_a_plain_reload_keeps_connections_and_reload_sh_says_goodbye_to_them(
    gateways: Stack, edges: tuple[Edge, Edge]
) -> None:
    one, _ = edges
    clients = [Client(one.ws_url, token=gateways.token(f"user-{number}")) for number in range(40)]
    await open_all(clients)
    one.signal(SIGHUP)  # as `nginx -s reload`
    async with Client(one.ws_url, token=gateways.token("new")) as new:
        await asyncio.gather(*(client.ask("ping") for client in clients))
        before = one.id
        reload = one.script("reload.sh", IDLE_TIMEOUT="90")
        assert {await client.closed(timeout=20) for client in [*clients, new]} == {3001}
    assert await asyncio.to_thread(reload.wait, 20) == 0
    assert one.id != before
    assert "proxy_read_timeout 90s;" in (one.run / "nginx.conf").read_text()
    async with Client(one.ws_url, token=gateways.token("later")) as later:
        assert await later.ask("ping")


def test_a_reload_with_wrong_settings_changes_nothing(alone: Edge) -> None:
    before = (alone.id, (alone.run / "nginx.conf").read_text())
    reload = alone.script("reload.sh", TRUSTED="10.0.0.0/99")
    said = reload.communicate(timeout=20)[1]
    assert reload.returncode == 1
    assert "10.0.0.0/99" in said
    assert said.endswith("edge: nothing was changed\n")
    assert (alone.id, (alone.run / "nginx.conf").read_text()) == before
    assert alone.get("/nothing").status_code == 404


def test_a_reload_that_fails_keeps_what_is_included(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "server-hello.conf").write_text("location = /hello { return 204; }\n")
    with Edge(tmp_path / "edge", GATEWAYS="127.0.0.1:1", INCLUDE=str(own)) as edge:
        assert edge.get("/hello").status_code == 204
        reload = edge.script("reload.sh", API="1")
        assert "API=1 needs" in reload.communicate(timeout=20)[1]
        assert reload.returncode == 1
        assert (edge.run / "include" / "server-hello.conf").exists(), "or the next Nginx would be without it"
        assert not (edge.run / "old").exists() or not list((edge.run / "old").iterdir())


def test_a_reload_under_the_same_name_changes_nothing(alone: Edge) -> None:
    """Who has come back would be told goodbye again, as long as the old workers live."""
    before = (alone.run / "nginx.conf").read_text()
    reload = alone.script("reload.sh", ID=alone.id, IDLE_TIMEOUT="90")
    said = reload.communicate(timeout=20)[1]
    assert reload.returncode == 1
    assert said.startswith(f"edge: CARILLON_EDGE_ID={alone.id} is set")
    assert (alone.run / "nginx.conf").read_text() == before


def test_an_edge_that_does_not_run_says_so(tmp_path: Path) -> None:
    edge = Edge(tmp_path / "none", GATEWAYS="127.0.0.1:1")
    drain = edge.script("drain.sh")
    assert drain.communicate(timeout=20)[1] == f"edge: no Nginx runs in {edge.run}\n"
    assert drain.returncode == 1


def test_the_delay_comes_first(alone: Edge) -> None:
    """Load balancers have to notice before anybody is refused."""
    began = time.monotonic()
    drain = alone.script("drain.sh", DRAIN_DELAY="1")
    assert alone.status("/readyz").status_code == 200
    assert drain.wait(10) == 0
    assert time.monotonic() - began > 1


def test_it_ends_in_time_where_a_connection_stays(alone: Edge) -> None:
    with httpx.Client(base_url=alone.url, trust_env=False) as client:
        assert client.get("/nothing").status_code == 404
        began = time.monotonic()
        assert alone.script("drain.sh", DRAIN_TIMEOUT="2").wait(10) == 0
        assert 1 < time.monotonic() - began < 5
    wait_until(lambda: not alone.running, "Nginx ends")


def test_in_a_container_its_log_has_what_a_hook_says(tmp_path: Path) -> None:
    """Kubernetes drops what a preStop prints."""
    parts.require("unshare")
    container = in_own("--pid", "--fork", "--kill-child", "--mount-proc")
    with Edge(tmp_path / "edge", within=container, GATEWAYS="127.0.0.1:1", INTERNAL_GATEWAYS="127.0.0.1:1") as edge:
        [first] = Path(f"/proc/{edge.pid}/task/{edge.pid}/children").read_text().split()
        hook = subprocess.run(
            in_those_of(first, "--pid", "--mount", "sh", str(NGINX / "drain.sh")),
            env=edge.environ,
            capture_output=True,
            text=True,
        )
        assert (hook.returncode, hook.stdout + hook.stderr) == (0, "")
        assert "edge: no gateway of CARILLON_EDGE_INTERNAL_GATEWAYS took the call" in edge.log


class TestSignals:
    """What stops containers where nobody calls a hook."""

    async def test_term_says_goodbye_first(self, gateways: Stack, edges: tuple[Edge, Edge]) -> None:
        one, _ = edges
        clients = [Client(one.ws_url, token=gateways.token(f"user-{number}")) for number in range(40)]
        await open_all(clients)
        one.signal(SIGTERM)
        assert {await client.closed(timeout=20) for client in clients} == {3001}
        assert await asyncio.to_thread(one.wait, 20) == 0

    def test_term_once_more_is_the_end(self, tmp_path: Path) -> None:
        with Edge(tmp_path / "edge", GATEWAYS="127.0.0.1:1", DRAIN_DELAY="60") as edge:
            edge.signal(SIGTERM)
            wait_until(lambda: draining(edge), "the drain has begun")
            assert edge.status("/readyz").status_code == 200
            edge.signal(SIGTERM)
            assert edge.wait(10) == 0
            wait_until(lambda: not draining(edge), "or it would end the next Nginx that runs here")

    def test_term_after_a_hook_is_the_end(self, alone: Edge) -> None:
        with httpx.Client(base_url=alone.url, trust_env=False) as client:
            assert client.get("/nothing").status_code == 404
            hook = alone.script("drain.sh", DRAIN_TIMEOUT="60")
            wait_until(lambda: alone.status("/readyz").status_code == 503, "it drains")
            hook.kill()  # its grace is over
            hook.wait(10)
            alone.signal(SIGTERM)
            assert alone.wait(10) == 0

    @pytest.mark.parametrize("signal", [SIGINT, SIGQUIT])
    def test_others_are_nginx_own(self, alone: Edge, signal: Signals) -> None:
        alone.signal(signal)
        assert alone.wait(10) == 0


def draining(edge: Edge) -> bool:
    """Whether drain.sh runs in the session of this edge."""
    found = subprocess.run(["pgrep", "--session", str(edge.pid), "--full", "drain.sh"], stdout=subprocess.DEVNULL)
    return found.returncode == 0


@pytest.mark.parametrize("client", ["curl", "wget", None])
def test_curl_or_wget_asks_the_gateways(alone: Edge, tmp_path: Path, client: str | None) -> None:
    """Debian's official image has curl, Alpine's wget."""
    if client:
        parts.require(client)
    with Listener() as heard:
        path = only_with(client, tmp_path / "bin")
        drain = alone.script("drain.sh", path=path, INTERNAL_GATEWAYS=f"127.0.0.1:{heard.port}")
        said = drain.communicate(timeout=20)[1]
    assert drain.returncode == 0
    if client:
        # A clock of whole seconds may have moved on meanwhile.
        assert re.fullmatch(rf"POST /edges/{alone.id}/drain\?window=(30|29) HTTP/1\.1", heard.lines[0])
        assert said == ""
    else:
        assert heard.lines == []
        assert "neither curl nor wget is here" in said


def test_that_no_gateway_takes_the_call_is_said(alone: Edge) -> None:
    """A policy that is too strict, a wrong port: nobody would know why clients were cut."""
    drain = alone.script("drain.sh", DRAIN_TIMEOUT="2")
    said = drain.communicate(timeout=20)[1]
    assert drain.returncode == 0
    assert said == (
        "edge: no gateway of CARILLON_EDGE_INTERNAL_GATEWAYS took the call: who was connected got no goodbye\n"
    )


def test_hundreds_of_gateways_are_asked_a_few_at_a_time(alone: Edge, tmp_path: Path) -> None:
    """Each call is a process in the memory of an edge that is full of connections."""
    gateways = [f"127.0.0.1:{port}" for port in range(20001, 20101)]
    path = only_with(None, tmp_path / "bin")
    for command in ("touch", "rm"):
        (path / command).symlink_to(shutil.which(command) or command)
    curl = path / "curl"
    curl.write_text(f"""#!/bin/sh
touch {tmp_path}/now.$$
set -- {tmp_path}/now.*
echo $# >>{tmp_path}/at-once
sleep 0.2
rm {tmp_path}/now.$$
""")
    curl.chmod(0o755)
    assert alone.script("drain.sh", path=path, INTERNAL_GATEWAYS=",".join(gateways)).wait(30) == 0
    at_once = [int(line) for line in (tmp_path / "at-once").read_text().split()]
    assert len(at_once) >= len(gateways)
    assert max(at_once) <= 16


def only_with(client: str | None, folder: Path) -> Path:
    """A folder with what every image has, and that client."""
    folder.mkdir()
    for command in ("sh", "awk", "cat", "date", "dirname", "getent", "sleep", "timeout", *([client] if client else [])):
        found = shutil.which(command)
        assert found, command
        (folder / command).symlink_to(found)
    return folder
