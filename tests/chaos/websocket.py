"""One WebSocket connection of the plain protocol, as lean as 500 in one process have to be."""

import asyncio
import base64
import os
import re
import struct
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from app.wire.frames import CLOSE, TEXT
from tests.support.raw_websocket import client_frame

_COOKIE = re.compile(rb"set-cookie: ([^;\r]+)", re.IGNORECASE)
_PONG = b'{"type":"pong"}'

#: Host and port.
Address = tuple[str, int]

#: What a client sees of a connection that ended without a close frame (RFC 6455 section 7.1.5).
ABNORMAL = 1006


class Message(Struct):
    """Any event or reply; what is not read here is left out."""

    type: str
    id: int | None = None
    room: str = ""
    epoch: str = ""
    offset: int = 0
    data: int = 0
    recovered: bool | None = None
    code: int = 0
    temporary: bool = False
    node: str = ""


_decode = msgspec.json.Decoder(Message).decode


class Owner(Protocol):
    """Who uses a connection."""

    def message(self, message: Message) -> None: ...

    def ended(self, connection: "Connection", code: int) -> None:
        """After it was made, once."""


class Connection(asyncio.Protocol):
    """Upgrades, then hands every message to its owner; answers pings."""

    def __init__(self, owner: Owner, address: Address, cookie: bytes, now: Callable[[], float]) -> None:
        self._owner = owner
        self._address = address
        #: What the edge asked to be sent with the next upgrade.
        self.cookie = cookie
        self._now = now
        self._upgraded = False
        self._rest = b""
        self._code = ABNORMAL
        self._transport: asyncio.Transport | None = None
        #: When something came from the server, or the connection was made.
        self.heard_at = now()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        host, port = self._address
        transport.write(
            f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n".encode()
            + (b"Cookie: %b\r\n" % self.cookie if self.cookie else b"")
            + b"\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._now()
        self._rest += data
        if not self._upgraded:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.abort()
                return
            cookie = _COOKIE.search(head)
            if cookie:
                self.cookie = cookie[1]
            self._upgraded, self._rest = True, rest
        self._read_frames()

    def _read_frames(self) -> None:
        data, start = self._rest, 0
        while len(data) >= start + 2:
            opcode, size, head = data[start] & 0x0F, data[start + 1], start + 2
            if size >= 126:
                head += 2 if size == 126 else 8
                size = int.from_bytes(data[start + 2 : head], "big")
            if len(data) < head + size:
                break
            self._frame(opcode, data[head : head + size])
            start = head + size
        self._rest = data[start:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
            assert self._transport is not None
            self._transport.write(client_frame(CLOSE, payload[:2]))
            self._transport.close()
            return
        assert opcode == TEXT, f"an unexpected frame {opcode}"
        message = _decode(payload)
        if message.type == "ping":
            self.send(_PONG)
        else:
            self._owner.message(message)

    def send(self, *texts: bytes) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(client_frame(TEXT, text) for text in texts))

    def abort(self) -> None:
        """Ends the connection; `ended` follows."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.ended(self, self._code)
