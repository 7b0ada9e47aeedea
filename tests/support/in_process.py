"""A node without sockets: real sessions, rooms and broker; connections are lists, and the test pauses them."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from app.auth.permissions import Claims
from app.broker.factory import create_broker
from app.gateway.connection import NO_SOCKET
from app.gateway.gateway import Gateway
from app.gateway.hook_calls import HookCalls
from app.gateway.session import Session
from app.settings import load
from app.wire.deflate import inflate
from app.wire.frames import RSV1, Frame
from app.wire.plain import JSON, Format
from tests.support.waiting import until


class RecordingConnection:
    """Keeps what a session hands over. With `capacity`, it is full after so many frames until `read` is called."""

    def __init__(self, *, fast: bool = True, compressed: bool = False) -> None:
        self.compressed = compressed
        self.socket = NO_SOCKET
        self.address = "192.0.2.1"
        self.raw_write: Callable[[bytes], None] | None = self._write if fast else None
        self.session: Session | None = None
        self.capacity: int | None = None
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.reading = True

    def _write(self, data: bytes) -> None:
        self.sent.append(data)
        if self.capacity is not None and len(self.sent) >= self.capacity:
            assert self.session is not None
            self.session.pause_writing()  # inside the write, as transports do (O5)

    def send(self, frame: Frame) -> None:
        if self.closed is None:
            self._write(frame.deflated if self.compressed else frame.wire)

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)

    def abort(self) -> None:
        self.close(1006, "")

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """The client at the other end of a RecordingConnection."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        fast: bool = True,
        compressed: bool = False,
        format: Format = JSON,
        room: str | None = None,
    ) -> None:
        self.connection = RecordingConnection(fast=fast, compressed=compressed)
        self.session = Session(gateway, self.connection, format, room)
        self.connection.session = self.session
        self._read = 0
        gateway.add(self.session, None)

    def send(self, message: dict[str, Any] | bytes) -> None:
        """A command, or any bytes, as a message of the session's format."""
        format = self.session.format
        if not isinstance(message, bytes):
            message = json.dumps(message).encode() if format is JSON else msgspec.msgpack.encode(message)
        self.session.receive(message, format.text)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was received, decoded."""
        return [event for data in self.connection.sent for event in _payloads(data, self.session.format)]

    def news(self) -> list[dict[str, Any]]:
        """What was received since the last call, decoded."""
        fresh, self._read = self.connection.sent[self._read :], len(self.connection.sent)
        return [event for data in fresh for event in _payloads(data, self.session.format)]

    def of_type(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type]

    def data(self, room: str) -> list[Any]:
        return [event["data"] for event in self.of_type("message") if event["room"] == room and "data" in event]

    async def reply(self, id: int | str) -> dict[str, Any]:
        """Waits for the reply to a command."""
        await until(lambda: any(event.get("id") == id for event in self.events), f"a reply to {id}")
        return next(event for event in self.events if event.get("id") == id)

    async def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        id = f"{type}-{len(self.events)}"
        self.send({"type": type, "id": id, **fields})
        return await self.reply(id)

    def stop_reading(self, after: int = 0) -> None:
        """The transport is full after so many frames more."""
        self.connection.capacity = len(self.connection.sent) + after
        if not after:
            self.session.pause_writing()

    def read_again(self) -> None:
        self.connection.capacity = None
        self.session.resume_writing()

    def lose(self, code: int = 1006) -> None:
        self.session.lost(code)


class Node:
    """`async with Node(namespaces={...}) as node: ann = await node.connect("ann")`"""

    def __init__(self, hooks: object = None, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "internal_port": 0,
            "ping_interval": 0,
            "unsubscribe_delay": 0,
            "insufficient_spread": 0,
            "position_check": 0,
        }
        self.settings = load(**(defaults | settings))
        self.broker = create_broker(self.settings, "node-1")
        self.gateway = Gateway(self.settings, self.broker, HookCalls(hooks, self.settings.hook_timeout), "node-1")

    async def __aenter__(self) -> "Node":
        await self.gateway.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.stop()

    def open(self, **options: Any) -> Peer:
        return Peer(self.gateway, **options)

    async def connect(self, user: str = "ann", *rooms: str, claims: Claims | None = None, **options: Any) -> Peer:
        """A peer that is let in, and in these rooms."""
        peer = self.open(**options)
        await self.gateway.admit(peer.session, claims or Claims(user, None, ("*",), ("*",)))
        for room in rooms:
            reply = await peer.ask("subscribe", room=room)
            assert reply["type"] == "ok", reply
        return peer

    def forget_history(self, room: str) -> None:
        """As a Redis that came back empty."""
        self.broker._positions.pop(room)

    async def settled(self) -> None:
        """Until what was published so far has been delivered."""
        heard: list[str] = []
        probe = await self.connect("probe", "default-probe")
        await self.gateway.publish("default-probe", heard)
        await until(lambda: probe.data("default-probe"), "the probe's publication")
        probe.lose()


def _payloads(data: bytes, format: Format) -> list[dict[str, Any]]:
    found = []
    while data:
        size, head = data[1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head], "big")
        payload = data[head : head + size]
        if data[0] & RSV1:
            payload = inflate(payload, 1_000_000)
        found.append(json.loads(payload) if format is JSON else msgspec.msgpack.decode(payload))
        data = data[head + size :]
    return found
