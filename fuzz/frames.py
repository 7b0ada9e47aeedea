"""The frame parser: however a stream is split, the same messages, or a Violation; no more is kept than allowed."""

from app.wire.frames import CONTROL_PAYLOAD_MAX
from app.wire.parser import FrameParser, Violation, read_close

#: The longest head of a frame: two bytes, eight of length, four of mask.
HEAD = 14


def fuzz(data: bytes) -> None:
    """The first byte says how the rest is split and whether messages may be compressed (RFC 7692), the second how large
    one may be."""
    if len(data) < 2:
        return
    step, deflate, max_size, stream = 1 + data[0] % 40, data[0] >= 128, data[1], data[2:]
    whole = outcome([stream], max_size, deflate=deflate)
    split = outcome([stream[at : at + step] for at in range(0, len(stream), step)], max_size, deflate=deflate)
    assert whole == split, (whole, split)


def outcome(chunks: list[bytes], max_size: int, *, deflate: bool) -> tuple[list[tuple[int, bytes]], int | None]:
    """The messages, and the code of the violation that ended them."""
    parser, messages = FrameParser(max_size, deflate=deflate), list[tuple[int, bytes]]()
    try:
        for chunk in chunks:
            for opcode, payload in parser.feed(chunk):
                assert len(payload) <= (CONTROL_PAYLOAD_MAX if opcode > 2 else max_size)
                if opcode == 1:
                    payload.decode()
                elif opcode == 8:
                    read_close(payload)
                messages.append((opcode, payload))
            assert len(parser._message or b"") <= max_size
            assert len(parser._buffer or b"") <= max(max_size, CONTROL_PAYLOAD_MAX) + HEAD
    except Violation as violation:
        assert violation.close.code in (1002, 1007, 1008, 1009)
        return messages, violation.close.code
    return messages, None
