"""A gateway and its clients in one process: what authors of hooks test with. No sockets, no Redis.

    async with TestGateway(hooks=my_hooks) as node:
        ann = await node.connect("ann")
        await ann.subscribe("chat:lobby")
        await node.gateway.publish("chat:lobby", {"text": "hello"})
        assert (await ann.receive()).data == {"text": "hello"}

Everything but the network is the real thing: the route, the upgrade's checks, dependencies, sessions, rooms, frames.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from app import hooks as shipped_hooks
from app.auth.tokens import sign
from app.broker.base import Member, Position, Present
from app.gateway.connection import NO_SOCKET, Receiver
from app.gateway.gateway import Gateway
from app.main import create_app
from app.settings import load
from app.wire.frames import BINARY, TEXT, Frame
from app.wire.plain import MSGPACK_SUBPROTOCOL

#: How long a client waits for what should come at once, in seconds.
TIMEOUT = 5.0

Event = dict[str, Any]


class CommandFailed(Exception):
    """The gateway answered a command with `error`."""

    def __init__(self, command: Event, error: Event) -> None:
        self.code: int = error["code"]
        self.reason: str = error["reason"]
        self.temporary: bool = error["temporary"]
        super().__init__(f"{command['type']}: error {self.code}, {self.reason}")


class ConnectionClosed(Exception):
    """The connection is over. `reason` is that of the server's `goodbye`, where it said one."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"closed with {code} {reason}".rstrip())


class UpgradeRefused(Exception):
    """The upgrade got an HTTP answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"{status} {body}")


@dataclass(frozen=True, slots=True)
class Message:
    """A publication as a client received it."""

    room: str
    #: None: the server only tells its publisher the position (O2).
    data: Any
    #: 0 in a room without history.
    offset: int
    #: Who published: None for what the server published.
    user: str | None
    session: str | None
    tags: Mapping[str, str]
    #: How many publications before this one were left out.
    skipped: int


@dataclass(frozen=True, slots=True)
class History:
    """A part of what a room keeps, and the room's newest position."""

    top: Position
    messages: Sequence[Message]


class TestGateway:
    """One node on the memory broker. `settings` are those of `app.settings`; what is not given comes from the
    environment and the TOML file, as in production."""

    __test__ = False  # not a test, whatever its name says to pytest

    def __init__(self, hooks: object = shipped_hooks, **settings: Any) -> None:
        hermetic = {"redis_url": "memory://", "internal_port": 0, "token_hmac_secret": [secrets.token_hex(16)]}
        self.settings = load(**(hermetic | settings))
        #: The application: `app.dependency_overrides` works as in FastAPI's own tests.
        self.app = create_app(self.settings, hooks=hooks)
        self.gateway: Gateway = self.app.state.gateway
        self._lifespan: AbstractAsyncContextManager[Mapping[str, Any] | None] | None = None
        self._state: Mapping[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._state = await self._lifespan.__aenter__() or {}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lifespan is not None
        await self._lifespan.__aexit__(kind, error, traceback)

    async def connect(
        self,
        user: str = "ann",
        *,
        rooms: Sequence[str] = ("*",),
        publish: Sequence[str] = ("*",),
        ttl: float | None = None,
        **upgrade: Any,
    ) -> "TestClient":
        """A client that is let in as `user`. `rooms`, `publish`: patterns of its token; `ttl`: the token's life in
        seconds, None: for ever; `upgrade`: as of `open`.

        Raises CommandFailed or ConnectionClosed where it is not let in."""
        client = await self.open(**upgrade)
        await client.auth(sign(self.settings, user, list(rooms), list(publish), ttl))
        return client

    async def open(
        self,
        path: str = "/ws",
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        address: str = "127.0.0.1",
        msgpack: bool = False,
    ) -> "TestClient":
        """A client that has shown no credentials but those in `headers` or `query`. Raises UpgradeRefused."""
        client = TestClient(address, msgpack=msgpack)
        await client._upgrade(self.app, path, query, headers or {}, self._state)
        return client


class TestClient:
    """A client of the plain protocol. Each command waits for its reply, and raises CommandFailed where it is an error,
    ConnectionClosed where the connection ended before."""

    __test__ = False

    def __init__(self, address: str, *, msgpack: bool = False) -> None:
        #: The server's pings are answered; False: it finds the client silent.
        self.answers_pings = True
        #: The session's id and the node's name, from `welcome`.
        self.session = ""
        self.node = ""
        self._codec = msgspec.msgpack if msgpack else msgspec.json
        self._line = _Line(address, self._arrived)
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._ids = iter(range(1, 2**53))

    # -- commands

    async def auth(self, token: str) -> Event:
        """First: shows who it is; later: refreshes the session."""
        return await self.command("auth", token=token)

    async def subscribe(self, room: str, **fields: Any) -> Position:
        """`fields`: `since` (a Position); `command` shows whether it `recovered`."""
        reply = await self.command("subscribe", room=room, **fields)
        return Position(reply["epoch"], reply["offset"])

    async def unsubscribe(self, room: str) -> None:
        await self.command("unsubscribe", room=room)

    async def publish(self, room: str, data: Any, **fields: Any) -> Position:
        """`fields`: `key`, `idempotency_key`, `ephemeral`."""
        reply = await self.command("publish", room=room, data=data, **fields)
        return Position(reply["epoch"], reply["offset"])

    async def history(self, room: str, **fields: Any) -> History:
        """`fields`: `limit`, `since` (a Position), `reverse`."""
        reply = await self.command("history", room=room, **fields)
        past = [_message({"room": room, **publication}) for publication in reply["publications"]]
        return History(Position(reply["epoch"], reply["offset"]), past)

    async def presence(self, room: str, **fields: Any) -> Present:
        """`fields`: `limit`."""
        reply = await self.command("presence", room=room, **fields)
        members = [Member(member["user"], member["session"]) for member in reply["members"]]
        return Present(reply["sessions"], reply["users"], members)

    async def rpc(self, method: str, data: Any = None) -> Any:
        return (await self.command("rpc", method=method, data=data))["data"]

    async def ping(self) -> None:
        """Returns when everything that was sent before has been dealt with."""
        await self.command("ping")

    async def command(self, type: str, **fields: Any) -> Event:
        """Any command of the protocol; returns its reply."""
        command = {"type": type, "id": next(self._ids), **fields}
        self.send(self._codec.encode(command))
        reply = await self._next(lambda event: event.get("id") == command["id"], f"reply to {type}", TIMEOUT)
        if reply["type"] == "error":
            raise CommandFailed(command, reply)
        return reply

    def send(self, payload: bytes | str) -> None:
        """Any bytes as one message, for what no well-behaved client would send."""
        text = self._codec is msgspec.json
        self._line.deliver(payload.encode() if isinstance(payload, str) else payload, text)

    # -- what comes

    async def receive(self, timeout: float = TIMEOUT) -> Message:
        """The next publication. Raises TimeoutError, ConnectionClosed."""
        return _message(await self.event("message", timeout))

    async def event(self, type: str, timeout: float = TIMEOUT) -> Event:
        """The next event of that type, such as `insufficient` or `goodbye`. Raises TimeoutError, ConnectionClosed."""
        return await self._next(lambda event: event["type"] == type, type, timeout)

    @property
    def messages(self) -> list[Message]:
        """Publications that have come and were not received yet; `await ping()` first to be sure that none is due."""
        return [_message(event) for event in self._events if event["type"] == "message"]

    async def closed(self, timeout: float = TIMEOUT) -> ConnectionClosed:
        """Waits until the server has ended the connection, and tells why. Raises TimeoutError."""
        try:
            await self._next(lambda _: False, "close", timeout)
        except ConnectionClosed as closed:
            return closed
        raise AssertionError("unreachable")

    async def _next(self, fits: Callable[[Event], bool], what: str, timeout: float) -> Event:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for event in self._events:
                        if fits(event):
                            self._events.remove(event)
                            return event
                    if self._line.close_code is not None:
                        raise ConnectionClosed(self._line.close_code, self._line.close_reason)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            seen = [event["type"] for event in self._events]
            raise TimeoutError(f"no {what} within {timeout} s; not asked for yet: {seen}") from None

    def _arrived(self, payload: bytes | None) -> None:
        if payload is not None:
            event: Event = self._codec.decode(payload)
            if event["type"] == "ping" and self.answers_pings:
                self.send(self._codec.encode({"type": "pong"}))
            else:
                self._events.append(event)
        self._changed.set()

    # -- the connection

    def stall(self) -> None:
        """Reads no more: from now on the session has to queue what it sends."""
        self._line.stall()

    def resume(self) -> None:
        """Reads again."""
        self._line.resume()

    async def close(self, code: int = 1000) -> None:
        """Ends the connection from the client's side; `on_disconnect` begins to run."""
        self._line.hang_up(code)
        await asyncio.sleep(0)

    async def _upgrade(
        self,
        app: Callable[..., Any],
        path: str,
        query: str,
        headers: Mapping[str, str],
        state: Mapping[str, Any],
    ) -> None:
        binary = self._codec is msgspec.msgpack
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": ("test", 80),
            "client": (self._line.address, 1),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"test"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
            "subprotocols": [MSGPACK_SUBPROTOCOL] if binary else [],
            "state": dict(state),
            "extensions": {"websocket.http.response": {}, "carillon.connection": {"connection": self._line}},
        }
        await app(scope, self._line.asgi_receive, self._line.asgi_send)
        if self._line.refused is not None:
            raise self._line.refused
        welcome = await self.event("welcome")
        self.session, self.node = welcome["session"], welcome["node"]


class _Line:
    """Implements gateway.connection.Connection, in the place of a transport; and the ASGI side of the upgrade."""

    def __init__(self, address: str, arrived: Callable[[bytes | None], None]) -> None:
        self.address = address
        self.raw_write: Callable[[bytes], None] | None = self._write
        self.compressed = False
        self.socket = NO_SOCKET
        #: Set once the connection is over.
        self.close_code: int | None = None
        self.close_reason = ""
        self.refused: UpgradeRefused | None = None
        self._arrived = arrived
        self._receiver: Receiver | None = None
        self._reading = True
        self._unread: deque[tuple[bytes, bool]] = deque()
        self._closing = False

    # -- the upgrade

    async def asgi_receive(self) -> Event:
        return {"type": "websocket.connect"}

    async def asgi_send(self, message: MutableMapping[str, Any]) -> None:
        match message["type"]:
            case "websocket.close":
                self.refused = UpgradeRefused(403, {}, message.get("reason") or "")
            case "websocket.http.response.start":
                headers = {name.decode(): value.decode() for name, value in message.get("headers", ())}
                self.refused = UpgradeRefused(message["status"], headers, "")
            case "websocket.http.response.body" if self.refused is not None:
                body = self.refused.body + message.get("body", b"").decode()
                self.refused = UpgradeRefused(self.refused.status, self.refused.headers, body)

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver

    # -- the client's side

    def deliver(self, payload: bytes, text: bool) -> None:
        self._unread.append((payload, text))
        self._read()

    def _read(self) -> None:
        while self._reading and self._unread and self._receiver is not None and not self._closing:
            self._receiver.receive(*self._unread.popleft())

    def stall(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_writing()

    def hang_up(self, code: int, reason: str = "") -> None:
        receiver, self._receiver = self._receiver, None
        self.raw_write = None
        if receiver is not None:
            self.close_code, self.close_reason = code, reason
            receiver.lost(code)
            self._arrived(None)

    # -- gateway.connection.Connection

    def send(self, frame: Frame) -> None:
        self._write(frame.wire)

    def _write(self, data: bytes) -> None:
        """What a transport takes: whole frames, maybe several (O4)."""
        if not self._closing:
            for payload in _payloads(data):
                self._arrived(payload)

    def close(self, code: int, reason: str) -> None:
        """The peer answers the close frame at once."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.hang_up, code, reason)

    def abort(self) -> None:
        self.close(1006, "")

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        asyncio.get_running_loop().call_soon(self._read)


def _payloads(data: bytes) -> Iterator[bytes]:
    """The messages in unmasked frames (RFC 6455 section 5.2)."""
    at = 0
    while at < len(data):
        opcode, size = data[at] & 0x0F, data[at + 1]
        assert opcode in (TEXT, BINARY)
        at += 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + wide], "big")
            at += wide
        yield data[at : at + size]
        at += size


def _message(event: Event) -> Message:
    sender = event.get("from") or {}
    return Message(
        room=event["room"],
        data=event.get("data"),
        offset=event.get("offset", 0),
        user=sender.get("user"),
        session=sender.get("session"),
        tags=event.get("tags") or {},
        skipped=event.get("skipped", 0),
    )
