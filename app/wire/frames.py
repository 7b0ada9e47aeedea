"""WebSocket frames as bytes (RFC 6455 section 5): what a server sends is not masked, so all members share it."""

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80

CONTROL_PAYLOAD_MAX = 125  # RFC 6455 section 5.5


def framed(opcode: int, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455 section 5.2)."""
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
    """One outgoing message: its payload, and the same as bytes for the socket. Built once, shared by its members."""

    __slots__ = ("payload", "text", "wire")

    def __init__(self, payload: bytes, *, text: bool) -> None:
        self.payload = payload
        self.text = text
        self.wire = framed(TEXT if text else BINARY, payload)
