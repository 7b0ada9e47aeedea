"""A client as an SDK is one: comes back with full jitter, says where it was in each room, and notes what it is told.

The same rules as in `app/http/demo/static/carillon.js`."""

import asyncio
import random
from collections.abc import Sequence
from time import monotonic

import msgspec

from app.broker.base import Position
from tests.chaos.records import Began, Closed, Event, Heard, Opened
from tests.chaos.websocket import ABNORMAL, Address, Connection, Message

#: Seconds.
BACKOFF_FIRST, BACKOFF_MAX = 0.25, 5.0
CONNECT_TIMEOUT = 5.0
RETRY_AFTER = 0.5
#: ping_interval (25) and 10 more.
SILENCE = 35.0

_AUTH = 0


class Client:
    """`start` begins; from then on it is in its rooms, or on its way back to them, until `stop`."""

    def __init__(self, name: str, edge: Address, token: str, rooms: Sequence[str], *, keeps_cookie: bool) -> None:
        self.name = name
        self.rooms = rooms
        self._edge = edge
        self._token = token
        self._keeps_cookie = keeps_cookie
        self._cookie = b""
        self._connection: Connection | None = None
        self._attempts = 0
        self._wanted = False
        self._waiting: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: What is asked by which id: rooms, by the number of the command.
        self._asked: dict[int, str] = {}
        self._next_id = _AUTH + 1
        self._absent: set[str] = set()
        self.positions: dict[str, Position] = {}
        self.journal: list[Event] = []
        self.node = ""
        #: Whether it is in all of its rooms.
        self.is_open = False
        #: Why it will not come back, where the server has said that it shall not.
        self.stopped_by: int | None = None

    def start(self) -> None:
        self._wanted = True
        self._connect()

    def stop(self) -> None:
        self._wanted = False
        if self._waiting is not None:
            self._waiting.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def turn_page(self) -> None:
        """Begins a new journal, at the positions where it is."""
        now = monotonic()
        self.journal = [Began(now, room, at.epoch, at.offset, None) for room, at in self.positions.items()]

    def look(self, now: float) -> None:
        """Ends a connection that is silent for too long; to be called every second or so."""
        connection = self._connection
        if connection is not None and now - connection.heard_at > (SILENCE if self.node else CONNECT_TIMEOUT):
            connection.abort()

    # The connection

    def _connect(self) -> None:
        self._waiting = None
        self._connecting = asyncio.ensure_future(self._try_to_connect())

    async def _try_to_connect(self) -> None:
        connection = self._connection = Connection(self, self._edge, self._cookie, monotonic)
        try:
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.create_connection(lambda: connection, *self._edge), CONNECT_TIMEOUT)
        except OSError:
            self.ended(connection, ABNORMAL)

    def ended(self, connection: Connection, code: int) -> None:
        if connection is not self._connection:
            return
        if self._keeps_cookie:
            self._cookie = connection.cookie
        self._connection = None
        if self.is_open:
            self.journal.append(Closed(monotonic(), code, self.node))
        self.is_open, self.node = False, ""
        if 3500 <= code < 4000:
            self.stopped_by = code
        elif self._wanted:
            longest = min(BACKOFF_MAX, BACKOFF_FIRST * 2**self._attempts)
            self._attempts += 1
            self._waiting = asyncio.get_running_loop().call_later(random.random() * longest, self._connect)

    def _opened(self) -> None:
        self.is_open = True
        self._attempts = 0
        self.journal.append(Opened(monotonic()))

    # The protocol

    def message(self, message: Message) -> None:
        match message.type:
            case "message":
                self._heard(message)
            case "ok" | "error" if message.id in self._asked:
                self._answered(self._asked.pop(message.id), message)
            case "welcome":
                self._welcomed(message)
            case "insufficient":
                self._insufficient(message)
            case "error":
                assert self._connection is not None
                self._connection.abort()  # `auth` failed

    def _heard(self, message: Message) -> None:
        self.journal.append(Heard(monotonic(), message.room, message.offset, message.data))
        at = self.positions.get(message.room)
        if at is not None:
            self.positions[message.room] = Position(at.epoch, message.offset)

    def _welcomed(self, message: Message) -> None:
        assert self._connection is not None
        self.node = message.node
        self._asked.clear()
        self._absent = set(self.rooms)
        auth = msgspec.json.encode({"type": "auth", "id": _AUTH, "token": self._token})
        self._connection.send(auth, *map(self._subscribe, self.rooms))

    def _subscribe(self, room: str) -> bytes:
        """The command; commands are answered in order, so it need not wait for what went before."""
        command: dict[str, object] = {"type": "subscribe", "id": self._next_id, "room": room}
        at = self.positions.get(room)
        if at is not None:
            command["since"] = {"epoch": at.epoch, "offset": at.offset}
        self._asked[self._next_id] = room
        self._next_id += 1
        return msgspec.json.encode(command)

    def _answered(self, room: str, reply: Message) -> None:
        if reply.type == "error" and reply.temporary:
            asyncio.get_running_loop().call_later(RETRY_AFTER, self._try_again, room, self._connection)
            return
        if reply.type == "error":
            self.stopped_by = reply.code
            return
        self.positions[room] = Position(reply.epoch, reply.offset)
        self.journal.append(Began(monotonic(), room, reply.epoch, reply.offset, reply.recovered))
        self._absent.discard(room)
        if not self._absent and not self.is_open:
            self._opened()

    def _try_again(self, room: str, connection: Connection | None) -> None:
        if connection is not None and connection is self._connection:
            connection.send(self._subscribe(room))

    def _insufficient(self, message: Message) -> None:
        """Something is not there any more; the room goes on after the position that is told."""
        self.positions[message.room] = Position(message.epoch, message.offset)
        self.journal.append(Began(monotonic(), message.room, message.epoch, message.offset, False))
