"""SIGTERM to a pod: its sessions go one after the other, to another pod, and nobody is refused meanwhile (N1-N6)."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from signal import SIGTERM

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_now

from app.gateway.drain import HEAD_START
from tests.support.client import Client, close_all, open_all
from tests.support.hosted import Pod, eventually
from tests.support.stack import API_KEY, Stack, StackFactory
from tests.support.waiting import until

CLIENTS = 300
DRAIN = 4  # seconds
CLOSES = 0.75 * DRAIN - HEAD_START  # of them; the last quarter is for what is unsent (O3)
WINDOWS = 6


@dataclass
class Move:
    """One client's way from a node to another: the moments of the loop's clock."""

    client: Client
    code: int
    closed: float
    back: float


async def follow(client: Client, moves: list[Move]) -> None:
    """Comes back as soon as it is closed, in a single attempt, as an impatient SDK does."""
    now = asyncio.get_running_loop().time
    while True:
        code = await client.closed(timeout=60)
        closed = now()
        await client.open()
        moves.append(Move(client, code, closed, now()))


def per_window(moments: Sequence[float], first: float, last: float) -> list[int]:
    """Between the first close and the last one: on a busy machine the first is late, the rest goes a little faster."""
    width = (last - first) / WINDOWS
    edges = [first + width * number for number in range(WINDOWS)] + [math.inf]
    return [sum(start <= at < end for at in moments) for start, end in pairwise(edges)]


def on_pod(clients: Sequence[Client], pod: int) -> list[Client]:
    return [client for client in clients if client.welcome["node"].startswith(f"pod-{pod}-")]


async def test_a_draining_pod_sends_its_clients_away_evenly_and_each_moves_once(make_stack: StackFactory) -> None:
    stack = make_stack(env={"CARILLON_DRAIN_TIMEOUT": str(DRAIN), "CARILLON_DRAIN_RATE": "0"})
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(CLIENTS)]
    await open_all(clients)
    moving, staying = on_pod(clients, 1), on_pod(clients, 2)
    assert len(moving) + len(staying) == CLIENTS
    assert len(moving) > CLIENTS / 4
    moves: list[Move] = []
    following = [asyncio.create_task(follow(client, moves)) for client in clients]

    began = asyncio.get_running_loop().time()
    stack.signal_pod(1, SIGTERM)
    await until(lambda: len(moves) > len(moving) / 4, "some have moved")
    await it_still_answers_503(stack, below=len(moving))
    await until(lambda: not stack.pod_running(1), "the pod ends")
    took = asyncio.get_running_loop().time() - began
    assert took < DRAIN + 5

    await until(lambda: len(moves) >= len(moving) or any(task.done() for task in following), "the last one is back")
    for task in following:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task  # raises what has kept it from coming back
    assert len(moves) == len(moving), "nobody moved twice"
    assert {move.client for move in moves} == set(moving), "nobody else"
    assert on_pod(clients, 2) == clients
    assert {move.code for move in moves} == {3001}
    for client in moving:
        goodbye, *more = [event for event in client.events if event["type"] == "goodbye"]
        assert not more
        assert 0 <= goodbye["reconnect_in_ms"] < 1000, "N6"
    assert max(move.back - move.closed for move in moves) < 5

    closes = [move.closed for move in moves]
    first, last = min(closes), max(closes)
    assert last - began < DRAIN
    assert last - first > CLOSES / 2, "not in a burst"
    planned = len(moving) / WINDOWS
    windows = per_window(closes, first, last)
    assert all(planned / 2 < count < planned * 2 for count in windows), windows
    assert max(per_window([move.back for move in moves], first, last)) < planned * 2
    await close_all(clients)


async def it_still_answers_503(stack: Stack, below: int) -> None:
    """N1, N3: the pod is unready, its listeners are there, upgrades are sent on, and the gauge falls."""
    pod = stack.pods[0]
    async with httpx.AsyncClient(base_url=pod.internal_url, trust_env=False) as http:
        ready, metrics = await http.get("/readyz"), await http.get("/metrics")
    assert (ready.status_code, ready.json()["state"]) == (503, "draining")
    values = [line.rpartition(" ")[2] for line in metrics.text.splitlines() if "carillon_drain_remaining" in line]
    assert 0 < float(values[-1]) < below
    for _ in range(10):  # at either worker
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{pod.url.replace('http', 'ws')}/ws", proxy=None)
        assert refused.value.response.status_code == 503
        assert "Retry-After" in refused.value.response.headers


@pytest.fixture
def hosted() -> Callable[..., Pod]:
    """The gateway itself, in one worker, without a drain that is short for tests."""

    def make(**environ: str) -> Pod:
        defaults = {"CARILLON_REDIS_URL": "memory://", "CARILLON_DRAIN_TIMEOUT": "60"}
        return Pod(app="app.main:create_app()", CARILLON_INTERNAL_PORT="0", **(defaults | environ))

    return make


def test_without_connections_a_pod_ends_at_once(hosted: Callable[..., Pod]) -> None:
    with hosted() as pod:
        code, seconds, lines, errors = pod.ready().end()
    assert (code, errors) == (0, "")
    assert seconds < 2
    (drained,) = [line["seconds"] for line in lines if line["event"] == "drain is over"]
    assert drained < 0.1


def test_during_the_delay_a_pod_is_unready_and_still_takes_connections(hosted: Callable[..., Pod]) -> None:
    """Here the API ends it, by the one trigger there is (N1)."""
    with hosted(CARILLON_DRAIN_DELAY="1", CARILLON_API_KEYS=API_KEY) as pod:
        pod.ready()
        url = f"http://127.0.0.1:{pod.port}/api/drain"
        assert httpx.post(url, trust_env=False).status_code == 401
        began = time.monotonic()
        assert httpx.post(url, headers={"X-API-Key": API_KEY}, trust_env=False).status_code == 200
        eventually(lambda: pod.get("/readyz")[0] == 503)
        with connect_now(f"ws://127.0.0.1:{pod.port}/ws", proxy=None) as client:
            assert '"welcome"' in client.recv(timeout=2)
            assert '"goodbye"' in client.recv(timeout=5)
            assert time.monotonic() - began > 1
        pod.process.communicate(timeout=5)
        assert pod.process.returncode == 0, "the master itself has ended"
        assert time.monotonic() - began < 15
