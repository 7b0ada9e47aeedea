"""One connection to a Redis or Valkey server: commands go out pipelined, replies come back first in, first out.

Calls made within one tick of the loop leave as one write. There is no retry in here, and no reconnect.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, TypeVar, cast

from hiredis import ProtocolError, Reader, pack_command

from app.broker.url import Address, Login

Reply = Any  # bytes, int, None or a list of them: what RESP2 has
Argument = bytes | str | int

_INCOMPLETE = object()

# A peer that vanished without a word is noticed after about 5 + 3 * 5 seconds also where nothing is sent.
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class ReplyError(Exception):
    """The server refused a command and did nothing. The text begins with a code: `READONLY ...`."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class ConnectionLost(Exception):
    """The connection ended before the reply: whether the command was carried out is unknown."""


class NotSent(ConnectionLost):
    """The connection had ended before the command: it was not carried out."""


class Connection(asyncio.Protocol):
    """Made by `connect`. When no reply came for `timeout` seconds although one is owed, it ends itself."""

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=ReplyError, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        #: A WAIT that has not left yet.
        self._wait: asyncio.Future[Reply] | None = None
        self._owed: deque[asyncio.Future[Reply]] = deque()
        self._answered = 0
        # How many calls there had been at the last ticks of the watch, the oldest first.
        self._marks: deque[int] = deque(maxlen=4)
        self._tick = timeout / 5
        self._watch: asyncio.TimerHandle | None = None
        self.address: Address | None = None
        #: Done when the connection is over.
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def call(self, *command: Argument) -> asyncio.Future[Reply]:
        """Sends a command. The future gives the reply, or raises ReplyError or ConnectionLost."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.closed.done():
            future.set_exception(NotSent())
            return future
        self._owed.append(future)
        self._send(command)
        return future

    def tell(self, *command: Argument) -> None:
        """Sends a command whose outcome does not matter."""
        self.call(*command).add_done_callback(lambda future: future.cancelled() or future.exception())

    async def replicas(self, wanted: int, timeout: float) -> int:
        """How many replicas have all that this connection has got replies for, after `timeout` seconds at most.

               What is sent after it waits too, so all who ask in one tick of the loop share one WAIT.
        Raises ReplyError or
               ConnectionLost."""
        if self._wait is None:
            self._wait = self.call("WAIT", wanted, max(1, int(timeout * 1000)))
        number: int = await asyncio.shield(self._wait)
        return number

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, command: tuple[Argument, ...]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pack_command(command))  # type: ignore[arg-type]  # its stub means a tuple of any length

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._wait = None

    def _received(self, reply: Reply) -> None:
        if not self._owed:  # a reply that nobody asked for, such as a refusal before the first command
            self.abort()
            return
        future = self._owed.popleft()
        self._answered += 1
        if future.done():
            return  # its caller has given up
        if isinstance(reply, ReplyError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _pending(self) -> int:
        return len(self._owed)

    def _watch_progress(self) -> None:
        if len(self._marks) == 4 and self._answered < self._marks[0]:
            self.abort()
            return
        self._marks.append(self._answered + self._pending())
        self._watch = self._loop.call_later(self._tick, self._watch_progress)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            with contextlib.suppress(AttributeError, OSError):  # macOS has not all of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._watch_progress()

    def data_received(self, data: bytes) -> None:
        reader, received = self._reader, self._received
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                received(reply)
        except ProtocolError:  # not a Redis server
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        while self._owed:
            future = self._owed.popleft()
            if not future.done():
                future.set_exception(ConnectionLost())


AnyConnection = TypeVar("AnyConnection", bound=Connection)


async def connect(
    make: Callable[[], AnyConnection],
    address: Address,
    login: Login,
    *,
    tls: SSLContext | None,
    db: int = 0,
    name: str = "",
) -> AnyConnection:
    """Connects and logs in. Raises OSError, ReplyError or ConnectionLost; the caller sets the timeout."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(make, *address, ssl=tls)
    connection.address = address
    try:
        await _log_in(connection, login, db)
        if name:
            await _introduce(connection, name)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _log_in(connection: Connection, login: Login, db: int) -> None:
    if login.password:
        try:
            await connection.call("AUTH", *([login.user] if login.user else []), login.password)
        except ReplyError as error:
            # A server without AUTH repeats the arguments in its error: keep the code alone.
            raise ReplyError(f"{error.code} the server refused user or password") from None
    if db:
        await connection.call("SELECT", db)


async def _introduce(connection: Connection, name: str) -> None:
    """Gives the connection a name for CLIENT LIST; the first command that a server without credentials refuses."""
    try:
        await connection.call("CLIENT", "SETNAME", name)
    except ReplyError as error:
        if error.code == "NOAUTH":
            raise
