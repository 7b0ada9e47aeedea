"""A pod that is added gets its part of the clients, through a real edge with its sticky cookie."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Self

import httpx

from tests.support.client import Client, close_all, open_all
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until

CLIENTS = 200
RATE = 25  # per second and node


class Browser(Client):
    """Keeps the edge's cookie, and comes back at once when it is told to."""

    def __init__(self, stack: Stack, number: int) -> None:
        super().__init__(stack.ws_url, token=stack.token(f"user-{number}"), additional_headers={})
        self.pods: list[str] = []
        self.codes: list[int] = []

    async def open(self) -> Self:
        await super().open()
        cookie = self._socket.response.headers.get("Set-Cookie") if self._socket.response else None
        if cookie is not None:
            self._options["additional_headers"] = {"Cookie": cookie.partition(";")[0]}
        self.pods.append(self.welcome["node"][: len("pod-1")])
        return self

    async def stay(self) -> None:
        while True:
            self.codes.append(await self.closed(timeout=120))
            await self.open()


def metric(stack: Stack, pod: int, name: str) -> float:
    text = httpx.get(f"{stack.pods[pod - 1].internal_url}/metrics", trust_env=False).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def test_a_late_pod_gets_its_part_and_every_client_moves_once_at_most(make_stack: StackFactory) -> None:
    stack = make_stack(late=[2], env={"CARILLON_REBALANCE_TOLERANCE": "0.1", "CARILLON_REBALANCE_RATE": str(RATE)})
    clients = [Browser(stack, number) for number in range(CLIENTS)]
    await open_all(list(clients))
    assert {client.pods[-1] for client in clients} == {"pod-1"}
    staying = [asyncio.create_task(client.stay()) for client in clients]

    stack.start_pod(2)
    stack.wait_ready()
    began = asyncio.get_running_loop().time()
    await until(lambda: sum(len(client.pods) == 2 for client in clients) >= 85, "clients move", timeout=60)
    took = asyncio.get_running_loop().time() - began
    await until(lambda: metric(stack, 1, "carillon_above_share") == 0, "the pod holds its share", timeout=40)

    assert not [task for task in staying if task.done()], "nobody is lost"
    visits = Counter(tuple(client.pods) for client in clients)
    assert set(visits) == {("pod-1",), ("pod-1", "pod-2")}, "nobody has come back, or moved twice"
    assert 90 <= visits[("pod-1",)] <= 115
    assert {code for client in clients for code in client.codes} == {3011}
    moves = visits[("pod-1", "pod-2")]
    assert took >= moves / (2 * RATE) - 0.5, "not faster than two nodes may"
    assert metric(stack, 1, "carillon_sessions_moved_total") == moves
    await until(
        lambda: metric(stack, 1, "carillon_upgrades_refused_total{") == moves, "each was sent on by its old pod (N4)"
    )
    for task in staying:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await close_all(list(clients))
