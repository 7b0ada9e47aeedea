"""Frames from a client to messages (RFC 6455 section 5), without I/O: bytes in, whole messages out."""

from collections.abc import Iterator

from app import codes
from app.codes import CloseCode
from app.wire.deflate import NotDeflated, inflate
from app.wire.frames import BINARY, CLOSE, CONTINUATION, CONTROL_PAYLOAD_MAX, FIN, PING, PONG, RSV1, TEXT

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled module
    from websockets.utils import apply_mask

MASKED = 0x80
RESERVED_BITS = 0x70

#: Each fragment costs as much as this many bytes of a message, so more of them than the largest message has room for
#: are refused; so many are always taken.
FRAGMENT_COST = 64
FEW_FRAGMENTS = 128


class Violation(Exception):
    """The client broke a rule; the connection ends with this close code."""

    def __init__(self, close: CloseCode, reason: str) -> None:
        self.close = close
        self.reason = reason
        super().__init__(reason)


class FrameParser:
    """One per connection. `max_size`: largest message in bytes, checked before its payload is kept, and in inflating.

    `deflate`: permessage-deflate was agreed on, so messages may come compressed (RFC 7692)."""

    __slots__ = ("_buffer", "_deflate", "_fragments", "_max_size", "_message", "_opcode")

    def __init__(self, max_size: int, *, deflate: bool = False) -> None:
        self._max_size = max_size
        self._deflate = deflate
        #: The beginning of a frame that has not wholly arrived.
        self._buffer: bytearray | None = None
        #: The fragments so far of a fragmented message, and its opcode with its RSV1 (0: none is open).
        self._message: bytearray | None = None
        self._opcode = 0
        self._fragments = 0

    @property
    def unfinished(self) -> bool:
        """Whether a frame or a message has begun and not ended, or is still to be looked at."""
        return self._buffer is not None or self._message is not None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields (opcode, payload): whole messages as TEXT or BINARY, and control frames. Raises Violation."""
        if self._buffer is None:
            view: bytes | bytearray = data
        else:
            self._buffer += data
            view = self._buffer
        start = 0
        try:
            while (found := self._frame(view, start)) is not None:
                kind, final, payload, start = found
                message = self._assemble(kind, final, payload)
                if message is not None:
                    yield message
        finally:
            self._keep(view, start)

    def _keep(self, view: bytes | bytearray, start: int) -> None:
        if start >= len(view):
            self._buffer = None
        elif view is self._buffer:
            del view[:start]
        else:
            self._buffer = bytearray(memoryview(view)[start:])

    def _frame(self, view: bytes | bytearray, start: int) -> tuple[int, bool, bytes, int] | None:
        """The frame at `start` as (opcode with RSV1, final, payload, end), or None while it is incomplete."""
        have = len(view) - start
        if have < 2:
            return None
        first, second = view[start], view[start + 1]
        opcode, final, size = first & 0x0F, bool(first & FIN), second & 0x7F
        self._check_head(first, second, opcode, final, size)
        head = 2
        if size >= 126:
            head = 4 if size == 126 else 10
            if have < head:
                return None
            size = int.from_bytes(view[start + 2 : start + head], "big")
            if size < 126 or (head == 10 and size < 65_536):
                raise Violation(codes.PROTOCOL_ERROR, "a length is written as short as it can be")
        if size > self._max_size - (len(self._message) if self._message and opcode == CONTINUATION else 0):
            raise Violation(codes.MESSAGE_TOO_BIG, f"a message may have {self._max_size} bytes")
        end = start + head + 4 + size
        if len(view) < end:
            return None
        mask = bytes(view[start + head : start + head + 4])
        return opcode | first & RSV1, final, apply_mask(bytes(view[start + head + 4 : end]), mask), end

    def _check_head(self, first: int, second: int, opcode: int, final: bool, size: int) -> None:
        reserved = first & RESERVED_BITS
        if reserved and not (reserved == RSV1 and self._deflate and opcode in (TEXT, BINARY)):
            raise Violation(codes.PROTOCOL_ERROR, "reserved bits are set")
        if not second & MASKED:
            raise Violation(codes.PROTOCOL_ERROR, "frames from a client are masked")
        if opcode in (CLOSE, PING, PONG):
            if not final or size > CONTROL_PAYLOAD_MAX:
                raise Violation(codes.PROTOCOL_ERROR, "a control frame is short and not fragmented")
        elif opcode == CONTINUATION:
            if not self._opcode:
                raise Violation(codes.PROTOCOL_ERROR, "nothing to continue")
        elif opcode not in (TEXT, BINARY):
            raise Violation(codes.PROTOCOL_ERROR, "unknown opcode")
        elif self._opcode:
            raise Violation(codes.PROTOCOL_ERROR, "a message is not finished")

    def _assemble(self, kind: int, final: bool, payload: bytes) -> tuple[int, bytes] | None:
        """Joins fragments; control frames may come between them. `kind`: the opcode with RSV1."""
        if kind in (CLOSE, PING, PONG):
            return kind, payload
        if kind == CONTINUATION:
            assert self._message is not None
            self._message += payload
            if not final:
                self._count_fragment()
                return None
            kind, payload = self._opcode, bytes(self._message)
            self._opcode, self._message = 0, None
        elif not final:
            self._opcode, self._message, self._fragments = kind, bytearray(payload), 1
            return None
        if kind & RSV1:
            payload = self._inflated(payload)
        opcode = kind & ~RSV1
        if opcode == TEXT and not payload.isascii():
            check_utf8(payload)
        return opcode, payload

    def _inflated(self, payload: bytes) -> bytes:
        """With an inflater of this message's own: none is kept for a connection (H7)."""
        try:
            message = inflate(payload, self._max_size)
        except NotDeflated:
            # RFC 7692 names no code; RFC 6455 section 7.4.1 has 1007 for payloads that are not what they say.
            raise Violation(codes.INVALID_PAYLOAD, "not deflate data") from None
        if len(message) > self._max_size:
            raise Violation(codes.MESSAGE_TOO_BIG, f"a message may have {self._max_size} bytes")
        return message

    def _count_fragment(self) -> None:
        self._fragments += 1
        if self._fragments > FEW_FRAGMENTS and self._fragments * FRAGMENT_COST > self._max_size:
            raise Violation(codes.POLICY_VIOLATION, "a message came in too many fragments")


def check_utf8(payload: bytes) -> None:
    """Raises Violation 1007 for what is not UTF-8 (RFC 6455 section 8.1)."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise Violation(codes.INVALID_PAYLOAD, "not UTF-8") from None


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 where it has none (RFC 6455 section 7.1.5). Raises Violation."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    # RFC 6455 section 7.4: these are not sent, or not assigned.
    if len(payload) < 2 or not 1000 <= code < 5000 or code in (1004, 1005, 1006) or 1015 <= code < 3000:
        raise Violation(codes.PROTOCOL_ERROR, "invalid close code")
    check_utf8(payload[2:])
    return code, payload[2:].decode()
