"""Messages deflated and inflated one by one (RFC 7692 section 7.2): none refers to another, none outgrows its limit."""

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire.deflate import NotDeflated, deflate, inflate

LIMIT = 65_536


def deflated_by_a_peer(payload: bytes, level: int = 6, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(flush)).removesuffix(b"\x00\x00\xff\xff")


@given(st.lists(st.one_of(st.binary(min_size=1), st.text(min_size=1).map(str.encode)), min_size=1, max_size=5))
def test_each_message_can_be_read_without_those_before_it(messages: list[bytes]) -> None:
    for message in [*messages, *messages]:
        deflated = deflate(message)
        assert zlib.decompressobj(-15).decompress(deflated + b"\x00\x00\xff\xff") == message
        assert inflate(deflated, LIMIT) == message
        assert deflate(message) == deflated


def test_a_peer_that_keeps_its_window_reads_them_too() -> None:
    inflater = zlib.decompressobj(-15)
    for number in range(50):
        message = f"message {number} ".encode() * 500
        assert inflater.decompress(deflate(message) + b"\x00\x00\xff\xff") == message


@given(st.binary(max_size=500), st.integers(0, 9))
def test_what_peers_send_at_any_level(message: bytes, level: int) -> None:
    assert inflate(deflated_by_a_peer(message, level), LIMIT) == message


@pytest.mark.parametrize("rest", [b"\x00", b""])
def test_a_peer_may_end_with_a_last_block(rest: bytes) -> None:
    """RFC 7692 section 7.2.3.4: then a byte of zero follows, which some leave out."""
    assert inflate(deflated_by_a_peer(b"Hello", flush=zlib.Z_FINISH) + rest, LIMIT) == b"Hello"


def test_the_examples_of_the_rfc() -> None:
    """RFC 7692 section 7.2.3."""
    for example in ("f2 48 cd c9 c9 07 00", "00 05 00 fa ff 48 65 6c 6c 6f 00", "f3 48 cd c9 c9 07 00 00"):
        assert inflate(bytes.fromhex(example), LIMIT) == b"Hello"
    assert inflate(bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"), LIMIT) == b"Hello"
    assert inflate(b"\x00", LIMIT) == b""


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff",
        b"no deflate data",
        deflated_by_a_peer(b"cut off " * 100)[:-5],
        deflated_by_a_peer(b"first", flush=zlib.Z_FINISH) + b"\x00" + deflated_by_a_peer(b"second"),
        zlib.compress(b"with a header"),
    ],
)
def test_what_is_no_whole_message(payload: bytes) -> None:
    with pytest.raises(NotDeflated):
        inflate(payload, LIMIT)


@given(st.binary(max_size=100))
def test_any_bytes_give_a_message_or_the_one_error(payload: bytes) -> None:
    with suppress(NotDeflated):
        assert len(inflate(payload, 50)) <= 51


@pytest.mark.parametrize(("size", "made"), [(999, 999), (1000, 1000), (1001, 1001), (5000, 1001)])
def test_of_a_message_above_the_limit_one_byte_more_is_made(size: int, made: int) -> None:
    assert len(inflate(deflated_by_a_peer(b"x" * size), 1000)) == made


def test_a_bomb_takes_no_memory() -> None:
    bomb = deflated_by_a_peer(bytes(1_000_000), 9)
    assert len(bomb) < 1100
    tracemalloc.start()
    try:
        assert len(inflate(bomb, LIMIT)) == LIMIT + 1
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()
