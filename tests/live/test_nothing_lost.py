"""Rooms with history lose nothing when Redis or a worker fails: each publication comes once, in order (invariant 1)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.client import Client, Ended
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until

ROOM = "kept:x"
ENV = {"CARILLON_NAMESPACES__KEPT__HISTORY_SIZE": "10000", "CARILLON_MESSAGE_RATE": "0"}
PUBLICATIONS = 300


class Returning:
    """A client as an SDK is one: comes back whenever it must, from where it was."""

    def __init__(self, stack: Stack, user: str) -> None:
        self._client = Client(stack.ws_url, token=stack.token(user))
        self._position: dict[str, Any] | None = None
        self.offsets: list[int] = []
        self.unrecovered = 0
        self.connects = 0
        self.ready = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._client.open()
                self.connects += 1
                await self._stay()
            except (ConnectionClosed, InvalidHandshake, Ended, OSError, AssertionError, TimeoutError, EOFError):
                await asyncio.sleep(0.1)  # what an SDK waits

    async def _stay(self) -> None:
        since = {"since": self._position} if self._position else {}
        self._client.events.clear()
        reply = await self._client.ask("subscribe", room=ROOM, **since)
        self.unrecovered += reply.get("recovered") is False
        self._position = {"epoch": reply["epoch"], "offset": reply["offset"]}
        self.ready.set()
        while self._client.close_code is None or self._client.events:
            for event in self._client.events:
                if event["type"] == "message":
                    self.offsets.append(event["offset"])
                    self._position["offset"] = event["offset"]
                self.unrecovered += event["type"] == "insufficient"
            self._client.events.clear()
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self._client.close()


@asynccontextmanager
async def returning(stack: Stack, count: int) -> AsyncIterator[list[Returning]]:
    clients = [Returning(stack, f"u{number}") for number in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        await asyncio.gather(*(client.ready.wait() for client in clients))
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


def publish_all(stack: Stack, midway: Callable[[], object]) -> None:
    """Publishes over HTTP, again under its key what was not confirmed; `midway` is called in the midst of it."""
    for number in range(PUBLICATIONS):
        if number == PUBLICATIONS // 3:
            midway()
        for _ in range(100):
            answer = stack.post("/api/publish", {"room": ROOM, "data": number, "idempotency_key": f"k{number}"})
            if answer.status_code == 200:
                break
            assert answer.status_code in (502, 503), answer.text  # 502: by Nginx, the worker that had it is dead
        else:
            raise AssertionError("the broker is away for too long")


async def everybody_has_everything(clients: list[Returning]) -> None:
    wanted = list(range(1, PUBLICATIONS + 1))
    await until(lambda: all(client.offsets[-1:] == [PUBLICATIONS] for client in clients), "the last one", timeout=20)
    for client in clients:
        assert client.offsets == wanted
        assert client.unrecovered == 0


@pytest.fixture
def stack(make_stack: StackFactory) -> Stack:
    return make_stack(pods=1, workers=2, env=ENV)


async def test_a_cut_of_the_subscriptions_is_filled_and_moves_nobody(stack: Stack) -> None:
    """Pub/sub alone would lose what is published meanwhile (R2)."""
    redis = Redis.from_url(stack.redis_url)
    async with returning(stack, 30) as clients:
        await asyncio.to_thread(publish_all, stack, lambda: redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
        await everybody_has_everything(clients)
        assert [client.connects for client in clients] == [1] * 30
    redis.close()


async def test_the_clients_of_a_killed_worker_recover(stack: Stack) -> None:
    async with returning(stack, 30) as clients:
        await asyncio.to_thread(publish_all, stack, lambda: stack.kill_worker())
        await everybody_has_everything(clients)
        assert 0 < sum(client.connects - 1 for client in clients) <= 30
