"""The opening handshake of a WebSocket (RFC 6455 section 4.2), without I/O."""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Headers = list[tuple[bytes, bytes]]


class BadHandshake(Exception):
    """The upgrade is refused with an HTTP status."""

    def __init__(self, status: int, reason: str, headers: Headers | None = None) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers or []
        super().__init__(reason)


@dataclass(slots=True)
class Head:
    """A request head as uvicorn's HTTP protocol hands it on: header names in lower case."""

    method: str = "GET"
    target: str = "/"
    headers: Headers = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers; an empty header, which some SDKs send, offers nothing."""
        offered = b",".join(self.values(b"sec-websocket-protocol")).decode("latin-1").split(",")
        return [token for part in offered if (token := part.strip())]


def read_head(data: bytes) -> Head:
    """Reads the head that uvicorn wrote anew from a parsed request, so its form is known."""
    lines = data.split(b"\r\n")
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines[1:] if line)]
    return Head(method, target, headers)


def accept_key(head: Head) -> bytes:
    """Checks the upgrade and answers `Sec-WebSocket-Accept`. Raises BadHandshake (RFC 6455 section 4.2.1)."""
    if head.method != "GET":
        raise BadHandshake(405, "a WebSocket begins with GET", [(b"allow", b"GET")])
    if head.values(b"sec-websocket-version") != [b"13"]:
        raise BadHandshake(426, "WebSocket version 13 is spoken here", [(b"sec-websocket-version", b"13")])
    keys = head.values(b"sec-websocket-key")
    try:
        valid = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        valid = False
    if not valid:
        raise BadHandshake(400, "Sec-WebSocket-Key must be 16 bytes in base64, once")
    return base64.b64encode(hashlib.sha1(keys[0] + _GUID).digest())


def switching_protocols(accept: bytes, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The 101 response."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: " + accept,
    ]
    if subprotocol:
        lines.append(b"sec-websocket-protocol: " + subprotocol.encode("latin-1"))
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refusal(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """An HTTP response instead of the upgrade; the connection ends with it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    lines += [name + b": " + value for name, value in headers if name.lower() != b"content-length"]
    lines += [b"content-length: " + str(len(body)).encode(), b"connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
