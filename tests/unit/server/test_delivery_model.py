"""Whatever happens, in whichever order, on real sockets: what a member reads is whole, in order, and told of its gaps.

A model test: seeded random joins, leaves, publications, pings, closes and resets, of clients that read in drops."""

import asyncio
import random

import pytest

from app import native
from app.auth.tokens import sign
from app.gateway.gateway import Gateway
from app.gateway.session import Session
from app.main import create_app
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.settings import Settings, load
from tests.support.dripping import DrippingClient
from tests.support.serving import serving
from tests.support.waiting import until

SEND_BUFFER = 2304  # bytes: the kernel's least, so that members pause all the time

#: Each with another way of what may be left out, and when it leaves.
ROOMS = ("history:x", "plain:x", "echo:x", "window:x", "drop:x", "conflate:x")


def settings(*, native_send: bool, chunk: int) -> Settings:
    return load(
        internal_port=0,
        token_hmac_secret="a-secret-of-the-tests-that-is-long-enough",
        native_send=native_send,
        fanout_chunk=chunk,
        outbox_bytes=20_000,
        message_rate=1_000_000,
        message_burst=1_000_000,
        ping_interval=0,
        unsubscribe_delay=0,
        namespaces={
            "history": {"history_size": 10},
            "plain": {},
            "echo": {"echo": True},
            "window": {"coalesce_ms": 2},
            "drop": {"slow_consumer": "drop_oldest"},
            "conflate": {"slow_consumer": "conflate", "conflate_ms": 1},
        },
    )


SEEDS = 1
STEPS = 600


class Model:
    """The world of one run: what was published by room, and who is there."""

    def __init__(self, gateway: Gateway, port: int, token: str, seed: int) -> None:
        self.gateway = gateway
        self.random = random.Random(seed)
        self.published = dict.fromkeys(ROOMS, 0)
        self.clients: list[DrippingClient] = []
        self._port, self._token = port, token

    @property
    def someone(self) -> DrippingClient:
        return self.random.choice(self.clients)

    @property
    def some_room(self) -> str:
        return self.random.choice(ROOMS)

    async def step(self) -> None:
        if len(self.clients) < 12 or self.random.random() < 0.01:
            self.clients.append(DrippingClient(self._port, self._token))
        match self.random.choices(
            ("publish", "join", "leave", "ping", "close", "reset", "read"), (20, 8, 3, 6, 0.2, 0.2, 1)
        )[0]:
            case "publish":
                for _ in range(self.random.choice((1, 1, 1, 2, 5))):
                    await self.publish(
                        self.some_room, self.random.choice([None, *self.gateway.registry.by_id.values()])
                    )
            case "join":
                self.someone.command("subscribe", room=self.some_room)
            case "leave":
                self.someone.command("unsubscribe", room=self.some_room)
            case "ping":
                self.someone.ping()
            case "close":
                self.someone.say_goodbye()
            case "reset":
                self.someone.reset()
            case "read":
                self.read_all()
        for client in self.clients:
            if self.random.random() < 0.3:
                client.read(self.random.choice((1, 100, 1000, 10_000)))
        await asyncio.sleep(0)

    async def publish(self, room: str, sender: Session | None) -> None:
        self.published[room] += 1
        data = b'{"n":%d,"pad":"%b"}' % (self.published[room], b"x" * self.random.choice((1, 50, 500, 3000)))
        await self.gateway.publish_json(room, data, sender=sender, key=self.random.choice((None, "a", "b")))

    def read_all(self) -> None:
        for client in self.clients:
            while client.read(100_000):
                pass

    async def end(self) -> None:
        """One more publication in each room, and everybody who is still there has read it."""
        for room in ROOMS:
            await self.publish(room, None)

        def all_read() -> bool:
            self.read_all()
            return all(
                number in (None, self.published[room])  # None: joined after it
                for client in self.clients
                if not client.closed
                for room, number in subscriptions(client).items()
            )

        await until(all_read, "everybody has read the last publications")


def subscriptions(client: DrippingClient) -> dict[str, int | None]:
    """The number of the last publication by room. Raises AssertionError for what was not in order, or not told."""
    last: dict[str, int | None] = {}
    for event in client.events:
        room = event.get("room")
        if event["type"] == "ok":
            last.pop(room, None)
            if client.asked[event["id"]] == "subscribe":
                last[room] = event["offset"] if room.startswith("history") else None
        elif event["type"] == "message":
            assert room in last, f"{room} is not subscribed: {event}"
            number, before = event.get("offset") or event["data"]["n"], last[room]
            assert "data" not in event or event["data"]["n"] == number
            skipped = event.get("skipped", 0)
            assert before is None or number == before + skipped + 1, f"{room} after {before}: {number}, {skipped=}"
            last[room] = number
        else:
            assert event["type"] in ("welcome", "error", "goodbye"), event
    return last


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("chunk", [2, 1000])
@pytest.mark.parametrize("mode", ["C", "Python"])
async def test_what_members_read(mode: str, chunk: int, seed: int) -> None:
    if mode == "C" and native.build() is None:
        pytest.skip("there is no compiler")
    these = settings(native_send=mode == "C", chunk=chunk)
    app = create_app(these)
    async with serving(app, WebSocketProtocol, NodeState(these), send_buffer=SEND_BUFFER) as url:
        model = Model(app.state.gateway, int(url.rpartition(":")[2]), sign(these, "ann", ["*"], ["*"]), seed)
        try:
            for _ in range(STEPS):
                await model.step()
            await model.end()
        finally:
            for client in model.clients:
                client.reset()
