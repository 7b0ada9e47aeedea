"""A blocking client that sends any bytes: for what no WebSocket library would send."""

import base64
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from app.wire.frames import CLOSE, FIN, RSV1, TEXT

TIMEOUT = 10.0

#: Always the same (that of RFC 6455 section 5.7), so that tests which are named after frames keep their names.
MASK = bytes.fromhex("37fa213d")

SERVER_PING = (TEXT, b'{"type":"ping"}')


def client_frame(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0, mask: bytes = MASK) -> bytes:
    """A masked frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([(FIN if final else 0) | reserved | opcode]) + length + mask + body


def frames_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole frames at the beginning of what a server sent; it sends each message in one. Fails at anything else."""
    start = 0
    while len(data) >= start + 2:
        first, size, head = data[start], data[start + 1], start + 2
        assert first in (FIN | TEXT, FIN | CLOSE), f"no frame begins with {data[start : start + 20]!r}, byte {start}"
        if size >= 126:
            head += 2 if size == 126 else 8
            size = int.from_bytes(data[start + 2 : head], "big")
        if len(data) < head + size:
            return
        yield first & 0x0F, data[head : head + size]
        start = head + size


class RawWebSocket:
    """`with RawWebSocket(port) as raw: raw.upgrade(); raw.send(b"...")`"""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(("127.0.0.1", port))
        self._buffer = b""
        self.compressed = False  # whether the last frame said so (RSV1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Ends the connection with RST, as a crash does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_if_open(self, data: bytes) -> None:
        """The same where the server may have closed already."""
        with suppress(ConnectionResetError, BrokenPipeError):
            self.send(data)

    def request(self, *lines: str, path: str = "/ws", after: bytes = b"") -> int:
        """Sends a request with these header lines, and bytes right behind it; the status of the answer."""
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *lines])
        self.send(head.encode("latin-1") + b"\r\n\r\n" + after)
        return self.status()

    def status(self) -> int:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1").lower()
        return int(head.split(b" ", 2)[1])

    def upgrade(self, *lines: str, path: str = "/ws", after: bytes = b"") -> Self:
        key = base64.b64encode(os.urandom(16)).decode()
        found = self.request(
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *lines,
            path=path,
            after=after,
        )
        assert found == 101, self.head
        return self

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the server closed")
        self._buffer += data

    def frame(self, *, pings: bool = False) -> tuple[int, bytes]:
        """The next frame from the server; its `ping` comes at any moment, and is left out unless asked for."""
        while (found := self._frame()) == SERVER_PING and not pings:
            pass
        return found

    def _frame(self) -> tuple[int, bytes]:
        while True:
            data = self._buffer
            if len(data) >= 2:
                size, head = data[1], 2
                if size == 126:
                    size, head = int.from_bytes(data[2:4], "big"), 4
                if len(data) >= head + size:
                    self._buffer = data[head + size :]
                    self.compressed = bool(data[0] & RSV1)
                    return data[0] & 0x0F, data[head : head + size]
            self._more()

    def close_code(self) -> int:
        """Reads until the server's close frame."""
        while True:
            opcode, payload = self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")

    def gone(self) -> bool:
        """Whether the server has ended the connection within the timeout."""
        try:
            while self._socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def gone_without_a_word(self) -> bool:
        """The same, and nothing came before."""
        return not self._buffer and self._socket.recv(1) == b""

    def read_byte(self) -> None:
        """Takes one byte from the socket."""
        self._buffer += self._socket.recv(1)

    def finish_sending(self) -> None:
        """Half a close of TCP: nothing more comes from us."""
        self._socket.shutdown(socket.SHUT_WR)

    def say(self, text: str) -> None:
        self.send(client_frame(TEXT, text.encode()))
