"""The parser: RFC 6455 section 5, however the bytes arrive."""

import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.wire.deflate import deflate
from app.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, close_payload, framed
from app.wire.parser import FrameParser, Violation, read_close
from tests.support.raw_websocket import client_frame

MAX = 70_000


def read(chunks: Sequence[bytes], max_size: int = MAX) -> list[tuple[int, bytes]]:
    parser = FrameParser(max_size)
    return [message for chunk in chunks for message in parser.feed(chunk)]


def violation(data: bytes, max_size: int = MAX) -> int:
    with pytest.raises(Violation) as broken:
        read([data], max_size)
    return broken.value.close.code


messages = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=300).map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=300)),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
)


@settings(max_examples=200)
@given(st.lists(messages, max_size=6), st.data())
def test_any_chop_of_any_messages_gives_the_same(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(client_frame(opcode, payload) for opcode, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(chunks) == sent


@given(st.text(max_size=100).map(str.encode), st.data())
def test_fragments_are_joined_with_control_frames_between_them(text: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=5)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stream = client_frame(TEXT, parts[0], final=False)
    for part in parts[1:-1]:
        stream += client_frame(PING, b"!") + client_frame(CONTINUATION, part, final=False)
    stream += client_frame(CONTINUATION, parts[-1])
    assert [message for message in read([stream]) if message[0] == TEXT] == [(TEXT, text)]


#: Any bytes at all, and frames with anything wrong in them: random bytes alone seldom get past the first frame.
streams = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.builds(
            lambda opcode, payload, final, reserved: client_frame(opcode, payload, final=final, reserved=reserved),
            st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG, 3]),
            st.binary(max_size=130),
            st.booleans(),
            st.sampled_from([0, 0, 0, 0x10, 0x40]),
        ),
    ),
    max_size=8,
).map(b"".join)


def outcome(chunks: Sequence[bytes], max_size: int) -> tuple[list[tuple[int, bytes]], int | None]:
    """The messages, and the code of the violation that ended them. Never more is kept than the bound."""
    parser, messages = FrameParser(max_size), list[tuple[int, bytes]]()
    try:
        for chunk in chunks:
            messages.extend(parser.feed(chunk))
            assert len(parser._message or b"") <= max_size
            assert len(parser._buffer or b"") <= max(max_size, 125) + 14
    except Violation as broken:
        return messages, broken.close.code
    return messages, None


@settings(max_examples=300)
@given(streams, st.data())
def test_any_bytes_give_the_same_however_they_are_split(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    messages, code = outcome(chunks, 100)
    assert code in (None, 1002, 1007, 1008, 1009)
    assert all(opcode in (TEXT, BINARY, CLOSE, PING, PONG) for opcode, _ in messages)
    assert all(len(payload) <= (125 if opcode > 2 else 100) for opcode, payload in messages)
    assert outcome([stream], 100) == (messages, code)
    assert outcome([stream[i : i + 1] for i in range(len(stream))], 100) == (messages, code)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_every_form_of_length(size: int) -> None:
    payload = b"x" * size
    assert read([client_frame(BINARY, payload)]) == [(BINARY, payload)]
    assert framed(BINARY, payload).endswith(payload)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (framed(TEXT, b"not masked"), 1002),
        (client_frame(TEXT, b"", reserved=0x40), 1002),
        (client_frame(TEXT, b"", reserved=0x10), 1002),
        (client_frame(0x3, b""), 1002),
        (client_frame(0xB, b""), 1002),
        (client_frame(CONTINUATION, b""), 1002),
        (client_frame(TEXT, b"a", final=False) + client_frame(TEXT, b"b"), 1002),
        (client_frame(PING, b"", final=False), 1002),
        (client_frame(PING, b"x" * 126), 1002),
        (b"\x81\xfe\0\x01\0\0\0\0a", 1002),  # section 5.2: a length is as short as it can be
        (b"\x81\xff\0\0\0\0\0\0\x01\0", 1002),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(TEXT, b"\xc3", final=False) + client_frame(CONTINUATION, b"x"), 1007),
        (client_frame(BINARY, b"x" * (MAX + 1)), 1009),
        (b"\x82\xff" + (2**62).to_bytes(8, "big"), 1009),
    ],
)
def test_what_breaks_the_rules_ends_with_its_code(data: bytes, code: int) -> None:
    assert violation(data) == code


def test_a_size_is_refused_from_the_head_alone_also_over_fragments() -> None:
    assert violation(b"\x82\xfe\xff\xff", max_size=1000) == 1009
    fragments = client_frame(BINARY, b"x" * 600, final=False) + client_frame(CONTINUATION, b"x" * 600)[:4]
    assert violation(fragments, max_size=1000) == 1009


@pytest.mark.parametrize(("max_size", "allowed"), [(100, 128), (64_000, 1000)])
def test_fragments_are_bounded_in_number(max_size: int, allowed: int) -> None:
    begun = client_frame(TEXT, b"", final=False) + client_frame(CONTINUATION, b"", final=False) * (allowed - 1)
    end = client_frame(CONTINUATION, b"x")
    assert read([(begun + end) * 2], max_size) == [(TEXT, b"x")] * 2
    assert violation(begun + client_frame(CONTINUATION, b"", final=False), max_size) == 1008


def test_a_message_that_comes_byte_by_byte_costs_each_byte_the_same() -> None:
    """Not more the more has come already: counted in bytes that the parser moves, not in time."""
    parser = FrameParser(MAX)
    stream = client_frame(BINARY, b"x" * MAX)
    for index in range(len(stream) - 1):
        before = parser._buffer
        assert list(parser.feed(stream[index : index + 1])) == []
        assert index == 0 or parser._buffer is before, "what has come stays where it is"
    assert list(parser.feed(stream[-1:])) == [(BINARY, b"x" * MAX)]


def test_whether_something_is_half_done() -> None:
    parser = FrameParser(MAX)
    frame = client_frame(TEXT, b"hello")
    assert not parser.unfinished
    list(parser.feed(frame[:1]))
    assert parser.unfinished
    list(parser.feed(frame[1:]))
    assert not parser.unfinished
    list(parser.feed(client_frame(TEXT, b"hello", final=False)))
    assert parser.unfinished
    list(parser.feed(client_frame(CONTINUATION, b"")))
    assert not parser.unfinished


def test_what_comes_after_the_reader_has_stopped_is_kept() -> None:
    parser = FrameParser(MAX)
    for message in parser.feed(client_frame(TEXT, b"1") + client_frame(TEXT, b"2")):
        assert message == (TEXT, b"1")
        break
    assert parser.unfinished
    assert list(parser.feed(b"")) == [(TEXT, b"2")]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b"", (1005, "")), (close_payload(1000, "bye"), (1000, "bye")), (close_payload(4999, "ä"), (4999, "ä"))],
)
def test_close_frames(payload: bytes, expected: tuple[int, str]) -> None:
    assert read_close(payload) == expected


@pytest.mark.parametrize(
    "payload", [b"\x03", *(close_payload(code, "") for code in (0, 999, 1004, 1005, 1006, 2999, 5000))]
)
def test_close_codes_that_must_not_be_sent(payload: bytes) -> None:
    with pytest.raises(Violation):
        read_close(payload)


def test_a_long_reason_is_cut_at_a_character() -> None:
    assert len(close_payload(1000, "ä" * 100)) <= 125
    assert close_payload(1000, "ä" * 100)[2:].decode() == "ä" * 61


class TestCompressed:
    """permessage-deflate (RFC 7692 section 7.2.2), where it was agreed on."""

    def read(self, stream: bytes, max_size: int = MAX) -> list[tuple[int, bytes]]:
        return list(FrameParser(max_size, deflate=True).feed(stream))

    def violation(self, stream: bytes, max_size: int = MAX) -> int:
        with pytest.raises(Violation) as broken:
            self.read(stream, max_size)
        return broken.value.close.code

    @settings(max_examples=50)
    @given(st.text(min_size=1, max_size=300).map(str.encode), st.data())
    def test_messages_come_compressed_or_not_whole_or_in_fragments(self, text: bytes, data: st.DataObject) -> None:
        deflated = deflate(text)
        cut = data.draw(st.integers(0, len(deflated)))
        stream = (
            client_frame(TEXT, deflated, reserved=RSV1)
            + client_frame(TEXT, text)
            + client_frame(TEXT, deflated[:cut], final=False, reserved=RSV1)
            + client_frame(PING, b"!")
            + client_frame(CONTINUATION, deflated[cut:])
            + client_frame(BINARY, text[:1], final=False)
            + client_frame(CONTINUATION, text[1:])
        )
        expected = [(TEXT, text), (TEXT, text), (PING, b"!"), (TEXT, text), (BINARY, text)]
        assert self.read(stream) == expected
        parser = FrameParser(MAX, deflate=True)
        assert [message for byte in stream for message in parser.feed(bytes((byte,)))] == expected

    @pytest.mark.parametrize(
        ("stream", "code"),
        [
            (client_frame(PING, b"", reserved=RSV1), 1002),
            (client_frame(CLOSE, b"", reserved=RSV1), 1002),
            (client_frame(TEXT, b"", reserved=0x20), 1002),
            (client_frame(TEXT, deflate(b"x"), reserved=RSV1 | 0x10), 1002),
            (
                client_frame(TEXT, b"a", final=False, reserved=RSV1) + client_frame(CONTINUATION, b"b", reserved=RSV1),
                1002,
            ),
            (client_frame(TEXT, b"no deflate data", reserved=RSV1), 1007),
            (client_frame(BINARY, b"", reserved=RSV1), 1007),
            (client_frame(TEXT, deflate(b"\xff" * 50), reserved=RSV1), 1007),
        ],
    )
    def test_what_breaks_the_rules_ends_with_its_code(self, stream: bytes, code: int) -> None:
        assert self.violation(stream) == code

    def test_without_agreement_nothing_may_be_compressed(self) -> None:
        assert violation(client_frame(TEXT, deflate(b"x"), reserved=RSV1)) == 1002

    def test_the_limit_holds_before_and_after_inflating(self) -> None:
        fits = client_frame(BINARY, deflate(bytes(1000)), reserved=RSV1)
        assert self.read(fits, max_size=1000) == [(BINARY, bytes(1000))]
        assert self.violation(client_frame(BINARY, deflate(bytes(1001)), reserved=RSV1), max_size=1000) == 1009
        bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = bomb.compress(bytes(1_000_000)) + bomb.flush(zlib.Z_SYNC_FLUSH)
        halves = client_frame(TEXT, packed[:500], final=False, reserved=RSV1) + client_frame(CONTINUATION, packed[500:])
        assert self.violation(halves) == 1009
        assert self.violation(b"\xc2\xfe\xff\xff", max_size=1000) == 1009

    @settings(max_examples=300)
    @given(st.lists(st.binary(max_size=40), max_size=5))
    def test_any_payload_gives_a_message_or_a_violation(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            try:
                assert len(self.read(client_frame(BINARY, payload, reserved=RSV1), max_size=100)[0][1]) <= 100
            except Violation as broken:
                assert broken.close.code in (1007, 1009)  # noqa: PT017 - it need not be raised
