"""The edge as a cluster has it: real gateways on addresses of their own behind one DNS name, which it follows."""

import asyncio
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from app.http.sticky import peer_id
from local.ports import free_ports
from tests.support.dns import AAAA, Dns
from tests.support.edge import Edge
from tests.support.pods import Pod
from tests.support.waiting import until

NAME = "carillon-gateway-headless.default.svc.cluster.local"
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
IDLE = 5_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 by itself")


@pytest.fixture
def dns() -> Iterator[Dns]:
    with Dns() as dns:
        yield dns


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Pod]]:
    """Three planned pods, of which two run."""
    public, internal = free_ports(2)
    with ExitStack() as running:
        planned = [Pod(tmp_path, address, (public, internal)) for address in ADDRESSES]
        for pod in planned:
            running.push(pod.__exit__)
        for pod in planned[:2]:
            pod.start()
        for pod in planned[:2]:
            pod.wait_ready()
        yield planned


@pytest.fixture
def edge(dns: Dns, pods: Sequence[Pod], tmp_path: Path) -> Iterator[Edge]:
    dns.names[NAME] = list(ADDRESSES[:2])
    public, internal = (pods[0].public.rpartition(":")[2], pods[0].internal.rpartition(":")[2])
    with Edge(
        tmp_path / "edge",
        GATEWAYS=f"{NAME}:{public}",
        INTERNAL_GATEWAYS=f"{NAME}:{internal}",
        RESOLVE="1",
        RESOLVER=dns.address,
    ) as edge:
        yield edge


@asynccontextmanager
async def upgrades(edge: Edge, count: int, cookie: str = "") -> AsyncIterator[list[ClientConnection]]:
    headers = {"Cookie": f"carillon_edge={cookie}"} if cookie else {}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connect(f"{edge.ws_url}/ws", proxy=None, additional_headers=headers))
            for _ in range(count)
        ]


async def pod_of(socket: ClientConnection) -> str:
    """The address of the pod that says welcome."""
    welcome = await socket.recv()
    return next(address for address in ADDRESSES if f"pod-{address}-" in str(welcome))


def cookie_of(socket: ClientConnection) -> str:
    assert socket.response is not None
    return SimpleCookie(socket.response.headers["Set-Cookie"])["carillon_edge"].value


def named(edge: Edge) -> str:
    """The pod that a new client is sent to, as the cookie calls it."""
    return SimpleCookie(edge.get("/").headers["Set-Cookie"])["carillon_edge"].value


async def resolved(edge: Edge) -> None:
    """Right after the start no name is known, and all is 502."""
    await until(lambda: edge.get("/").status_code == 200, "the name is known")


async def test_pods_are_followed_and_15_of_15_reconnects_come_back(edge: Edge, dns: Dns, pods: Sequence[Pod]) -> None:
    await resolved(edge)
    async with upgrades(edge, 10) as sockets:
        assert Counter([await pod_of(socket) for socket in sockets]) == dict.fromkeys(ADDRESSES[:2], 5)

    async with upgrades(edge, 1) as [first]:
        cookie, home = cookie_of(first), await pod_of(first)
    async with upgrades(edge, 15, cookie) as sockets:
        assert Counter([await pod_of(socket) for socket in sockets]) == {home: 15}

    # A pod more: it is found while the others' clients stay.
    async with upgrades(edge, 4, cookie) as staying:
        pods[2].start()
        pods[2].wait_ready()
        dns.names[NAME] = list(ADDRESSES)
        await until(lambda: named(edge) == peer_id(pods[2].address, pods[2].port), "it is found")
        for socket in staying:
            await (await socket.ping())

    # One less: nobody is refused while it is in the DNS.
    dead = next(pod for pod in pods if pod.address == home)
    dead.kill()
    async with upgrades(edge, 15, cookie) as sockets:
        assert home not in {await pod_of(socket) for socket in sockets}
    assert AAAA not in {kind for _, kind in dns.asked}, "RESOLVER_IPV6=0"


@pytest.mark.long
async def test_a_full_gateway_is_503_with_the_time_to_come_back(tmp_path: Path) -> None:
    public, internal = free_ports(2)
    with (
        Pod(tmp_path, "127.0.0.2", (public, internal), CARILLON_MAX_CONNECTIONS="2") as pod,
        Edge(tmp_path / "edge", GATEWAYS=pod.public) as edge,
    ):
        async with upgrades(edge, 2):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{edge.ws_url}/ws", proxy=None)
        assert refused.value.response.status_code == 503
        assert "Retry-After" in refused.value.response.headers


@pytest.mark.long
async def test_5000_idle_connections(edge: Edge) -> None:
    await resolved(edge)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 2_000), hard))
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{edge.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    gate = asyncio.Semaphore(100)
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            streams.append((reader, writer))
            writer.write(head)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")

    try:
        async with asyncio.timeout(120):
            await asyncio.gather(*(one() for _ in range(IDLE)))
        async with upgrades(edge, 1) as [socket]:
            await (await socket.ping())
        assert not any(reader.at_eof() for reader, _ in streams)
    finally:
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
