"""The opening handshake of a WebSocket (RFC 6455 section 4.2), and what is agreed on in it, without I/O."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Headers = list[tuple[bytes, bytes]]

#: The grammar of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1; tokens: RFC 9110 section 5.6.2).
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rb'[ \t]*;[ \t]*(%b)(?:[ \t]*=[ \t]*(?:(%b)|"((?:[^"\\]|\\.)*)"))?' % (_TOKEN, _TOKEN)
_PARAMETERS = re.compile(_PARAMETER)
_OFFER = re.compile(rb"[ \t]*(?:(%b)((?:%b)*))?[ \t]*(?:,|\Z)" % (_TOKEN, _PARAMETER))

#: Longer lists of offers are declined unread: browsers send 50 bytes, and to read `max_head_bytes` of them takes 20 ms.
_OFFERS_BYTES = 1024

_DEFLATE = b"permessage-deflate"
_WINDOW_BITS = b"server_max_window_bits"

#: What we say in any case (H7): no message refers to one before it, so all members can share its bytes.
_DEFLATE_ANSWER = _DEFLATE + b"; server_no_context_takeover; client_no_context_takeover"

#: Parameters of an offer, each at most once, with the values that can be met (RFC 7692 section 7.1). The shared bytes
#: need the whole window, so a smaller one is declined (H7).
_ACCEPTABLE: dict[bytes, frozenset[bytes | None]] = {
    b"server_no_context_takeover": frozenset({None}),
    b"client_no_context_takeover": frozenset({None}),
    b"client_max_window_bits": frozenset({None, *(str(bits).encode() for bits in range(8, 16))}),
    _WINDOW_BITS: frozenset({b"15"}),
}


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a 101 response says beside what the application adds to it."""

    accept: bytes
    #: `Sec-WebSocket-Extensions`; empty: none.
    extensions: bytes = b""


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


def agree_on_deflate(head: Head) -> bytes:
    """The answer to the first offer of permessage-deflate that can be met; empty where there is none."""
    header = b",".join(head.values(b"sec-websocket-extensions"))
    for name, parameters in _offers(header) if len(header) <= _OFFERS_BYTES else ():
        values = dict(parameters)
        once = len(values) == len(parameters)
        if name == _DEFLATE and once and all(value in _ACCEPTABLE.get(key, ()) for key, value in values.items()):
            # Who limits the window waits to be told so (RFC 7692 section 7.1.2.1).
            return _DEFLATE_ANSWER + (b"; " + _WINDOW_BITS + b"=15" if _WINDOW_BITS in values else b"")
    return b""


def _offers(header: bytes) -> Iterator[tuple[bytes, list[tuple[bytes, bytes | None]]]]:
    """Extensions with their parameters, in order of preference. Ends before what cannot be read: it is declined."""
    at = 0
    while at < len(header) and (offer := _OFFER.match(header, at)) is not None:
        at = offer.end()
        if offer[1]:
            yield offer[1], [(found[1], _value(found)) for found in _PARAMETERS.finditer(offer[2])]


def _value(parameter: re.Match[bytes]) -> bytes | None:
    """A token, or the same in quotes; None where the parameter has no value."""
    _, token, quoted = parameter.groups()
    return token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)


def switching_protocols(answer: Answer, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The 101 response."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: " + answer.accept,
    ]
    if answer.extensions:
        lines.append(b"sec-websocket-extensions: " + answer.extensions)
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
