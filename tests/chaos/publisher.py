"""Publishes over the server API as a backend does: one request at a time, under a key, at any pod that answers."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from time import monotonic

import msgspec
from msgspec import Struct

from app.broker.base import Position
from tests.chaos.records import Outcome, Publication
from tests.chaos.websocket import Address

#: Seconds.
REQUEST_TIMEOUT = 8.0
PAUSE = 0.2


class Asks(Enum):
    """What a publisher does when it does not know whether it has published."""

    ONCE = "leaves it at that"
    AGAIN = "asks again under the same key until it knows"


class _Published(Struct):
    epoch: str
    offset: int


_decode = msgspec.json.Decoder(_Published).decode


class Publisher:
    """`apis`: where the server API should answer, at this moment."""

    def __init__(self, apis: Callable[[], Sequence[Address]], key: str, asks: Asks) -> None:
        self._apis = apis
        self._key = key
        self._asks = asks
        self._turn = itertools.count()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self, one: Publication, deadline: float) -> None:
        """Notes the outcome in the publication; returns at `deadline` (of `time.monotonic`) at the latest."""
        key = f"chaos-{one.id}"
        body = msgspec.json.encode({"room": one.room, "data": one.id, "idempotency_key": key})
        unsure = False
        while True:
            status, answer = 0, b""
            with suppress(OSError, asyncio.IncompleteReadError, ValueError, IndexError):  # nobody there, or cut off
                async with asyncio.timeout(min(REQUEST_TIMEOUT, max(0.1, deadline - monotonic()))):
                    status, answer = await self._request(body)
            if status == 200:
                found = _decode(answer)
                one.outcome, one.position = Outcome.ACCEPTED, Position(found.epoch, found.offset)
                return
            if 400 <= status < 500 and not unsure:
                one.outcome = Outcome.REFUSED
                return
            unsure = True
            self.close()
            if self._asks is Asks.ONCE or monotonic() > deadline:
                return
            await asyncio.sleep(PAUSE)

    async def _request(self, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            apis = self._apis()
            self._streams = await asyncio.open_connection(*apis[next(self._turn) % len(apis)])
        reader, writer = self._streams
        writer.write(
            f"POST /api/publish HTTP/1.1\r\nHost: carillon\r\nX-API-Key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        status, answer = int(head.split(b" ", 2)[1]), await reader.readexactly(size)
        if b"\r\nconnection: close\r\n" in head:  # from a pod that drains: the next one is for another
            self.close()
        return status, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
