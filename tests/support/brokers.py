"""Brokers for tests, and a sink that remembers what a broker told it."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from app.broker.base import Broker, History, Position
from app.broker.factory import create_broker
from app.settings import Settings
from tests.support.waiting import until

HISTORY = History(size=5, ttl=60, meta_ttl=3600)

#: The first byte is the envelope's format version (P6).
ENVELOPE = b"\x01"


class Recorder:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.publications: list[tuple[str, Position, bytes]] = []
        self.controls: list[bytes] = []
        #: Room and who joined or left, as JSON.
        self.presence: list[tuple[str, Any]] = []
        #: "lost", and the rooms of each `restored`, in order.
        self.events: list[str | list[str]] = []
        #: The next publication raises, as a mistake in a node would.
        self.fail_next = False

    def publication(self, room: str, position: Position, envelope: bytes) -> None:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("a mistake in the sink")
        self.publications.append((room, position, envelope))

    def presence_changed(self, room: str, news: bytes) -> None:
        assert news[:1] == b"1"
        self.presence.append((room, json.loads(news[1:])))

    def control(self, message: bytes) -> None:
        self.controls.append(message)

    def lost(self) -> None:
        self.events.append("lost")

    def restored(self, rooms: Collection[str]) -> None:
        self.events.append(sorted(rooms))

    def heard(self, room: str) -> list[bytes]:
        return [envelope for where, _, envelope in self.publications if where == room]


Pair = tuple[Broker, Recorder]


def settings_for(url: str, **options: Any) -> Settings:
    """Settings of a deployment of its own: brokers that share `key_prefix` hear each other."""
    options.setdefault("key_prefix", f"test-{secrets.token_hex(4)}:")
    options.setdefault("broker_backoff_max", 0.2)
    return Settings(redis_url=SecretStr(url), **options)


@asynccontextmanager
async def started(settings: Settings, node: str = "node") -> AsyncIterator[Pair]:
    """A broker that tries to connect; stopped at the end."""
    broker, sink = create_broker(settings, node), Recorder()
    await broker.start(sink)
    try:
        yield broker, sink
    finally:
        await broker.stop()


@asynccontextmanager
async def hearing(settings: Settings, node: str = "node") -> AsyncIterator[Pair]:
    """A broker that hears itself."""
    async with started(settings, node) as (broker, sink):
        await until(lambda: hears(broker, settings), "the broker hears itself")
        yield broker, sink


def hears(broker: Broker, settings: Settings) -> bool:
    """What readiness asks."""
    return broker.connected and broker.echo_age < settings.broker_deaf_after


async def until_answered(ask: Callable[[], Awaitable[bool]], what: str, every: float = 0.02) -> None:
    """Asks the broker again and again, for 5 seconds at most, until it answers true."""
    for _ in range(int(5 / every)):
        if await ask():
            return
        await asyncio.sleep(every)
    raise AssertionError(f"not within 5 s: {what}")
