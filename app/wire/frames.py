"""WebSocket frames as bytes (RFC 6455 section 5): what a server sends is not masked, so all members share it."""

import struct

from app.wire.deflate import deflate

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1 = 0x80, 0x40  # RSV1: the first frame of a compressed message (RFC 7692 section 6)

CONTROL_PAYLOAD_MAX = 125  # RFC 6455 section 5.5


def framed(opcode: int, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455 section 5.2); `opcode` may have RSV1 set."""
    size = len(payload)
    if size < 126:
        return bytes((FIN | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", FIN | opcode, 127, size) + payload


def close_payload(code: int, reason: str) -> bytes:
    """Body of a close frame; the reason is cut at a character so that it fits (RFC 6455 section 5.5.1)."""
    text = reason.encode()[: CONTROL_PAYLOAD_MAX - 2].decode(errors="ignore")
    return struct.pack("!H", code) + text.encode()


class Frame:
    """One outgoing message: its payload, and the same as bytes for the socket. Built once, shared by its members.

    `deflate_from`: compressed from this size in bytes, for those with permessage-deflate; 0: never (H7)."""

    __slots__ = ("_deflated", "payload", "text", "wire")

    def __init__(self, payload: bytes, *, text: bool, deflate_from: int = 0) -> None:
        self.payload = payload
        self.text = text
        self.wire = framed(TEXT if text else BINARY, payload)
        #: None until the first member needs it.
        self._deflated = None if 0 < deflate_from <= len(payload) else self.wire

    @property
    def deflated(self) -> bytes:
        """For members with permessage-deflate: compressed once, or `wire` where that is not to be, or saves nothing."""
        if self._deflated is None:
            compressed = framed(RSV1 | (TEXT if self.text else BINARY), deflate(self.payload))
            self._deflated = compressed if len(compressed) < len(self.wire) else self.wire
        return self._deflated
