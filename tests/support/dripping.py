"""A client that reads as little as the test says, in the server's own event loop, and checks every frame."""

import base64
import json
import os
import socket
from contextlib import suppress
from typing import Any

from app.wire.frames import CLOSE, FIN, PING, PONG, TEXT
from tests.support.raw_websocket import client_frame

RECEIVE_BUFFER = 2304  # the kernel's least


class DrippingClient:
    """Never blocks and never waits: `read` takes what is there, up to so many bytes."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._buffer = b""
        self._upgraded = False
        #: What was asked, by the command's id.
        self.asked: dict[int, str] = {}
        self.closed = False
        self.close_code: int | None = None
        self.events: list[dict[str, Any]] = []
        self.pongs = 0
        self._send(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # it was closed, or takes no more: that command is lost as a whole
            self._socket.send(data)

    def command(self, type: str, **fields: Any) -> None:
        id = len(self.asked)
        self.asked[id] = type
        self._send(client_frame(TEXT, json.dumps({"type": type, "id": id, **fields}).encode()))

    def ping(self) -> None:
        self._send(client_frame(PING, b"p" * 100))

    def say_goodbye(self) -> None:
        self._send(client_frame(CLOSE, b"\x03\xe8"))

    def reset(self) -> None:
        self.closed = True
        self._socket.close()

    def read(self, size: int) -> int:
        """Takes up to `size` bytes; how many there were. Raises AssertionError for what no server may send."""
        if self.closed:
            return 0
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            data = b""
        if not data:
            self.reset()
            return 0
        assert self.close_code is None, f"after the close frame: {data[:80]!r}"
        self._buffer += data
        while self._upgraded or self._head():
            if not self._frame():
                break
        return len(data)

    def _head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if end:
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._buffer, self._upgraded = rest, True
        return self._upgraded

    def _frame(self) -> bool:
        data = self._buffer
        if len(data) < 2:
            return False
        opcode, size, start = data[0] & 0x0F, data[1], 2
        assert data[0] in (FIN | TEXT, FIN | CLOSE, FIN | PONG), f"no frame: {data[:80]!r}"
        assert size < 127, f"no such size was sent: {data[:80]!r}"
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + size or len(data) < start:
            return False
        payload, self._buffer = data[start : start + size], data[start + size :]
        if opcode == TEXT:
            self.events.append(json.loads(payload))
        elif opcode == PONG:
            assert payload == b"p" * 100
            self.pongs += 1
        else:
            self.close_code = int.from_bytes(payload[:2], "big")
            assert not self._buffer, f"after the close frame: {self._buffer[:80]!r}"
            self.say_goodbye()
        return True
