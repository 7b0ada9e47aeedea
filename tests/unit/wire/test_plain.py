"""Both formats decode anything to a command or a BadMessage, and say the same."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.codes import CommandError
from app.wire.messages import COMMANDS, Command, Message, Ok, Publisher
from app.wire.payload import MAX_DEPTH, canonical, checked_json
from app.wire.plain import JSON, MSGPACK, BadMessage, Format
from app.wire.publication import Publication, pack, unpack
from app.wire.versioned import UnknownVersion

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def encode(format: Format, value: Any) -> bytes:
    return json.dumps(value).encode() if format is JSON else msgspec.msgpack.encode(value)


@settings(max_examples=300)
@given(st.sampled_from([JSON, MSGPACK]), st.binary(max_size=80))
def test_any_bytes_are_a_command_or_a_bad_message(format: Format, data: bytes) -> None:
    try:
        assert isinstance(format.decode(data), Command)
    except BadMessage as bad:
        assert bad.error.code == 107  # noqa: PT017 - it need not be raised


@given(st.sampled_from([JSON, MSGPACK]), values)
def test_any_value_is_a_command_or_a_bad_message(format: Format, value: Any) -> None:
    with pytest.raises(BadMessage):
        format.decode(encode(format, value))


@given(st.sampled_from([JSON, MSGPACK]), values)
def test_data_survives_both_formats(format: Format, value: Any) -> None:
    command = format.decode(encode(format, {"type": "publish", "room": "chat:x", "data": value}))
    as_json = format.data_as_json(bytes(command.data), 10_000)  # type: ignore[union-attr]
    assert msgspec.json.decode(as_json) == value
    for other in (JSON, MSGPACK):
        frame = other.frame(Message(room="chat:x", data=other.data_from_json(as_json)))
        decoded = json.loads(frame.payload) if other is JSON else msgspec.msgpack.decode(frame.payload)
        assert decoded == {"type": "message", "room": "chat:x", "data": value}


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_fields_are_refused(command: type[Command]) -> None:
    name = command.__struct_config__.tag
    for format in (JSON, MSGPACK):
        with pytest.raises(BadMessage) as bad:
            format.decode(encode(format, {"type": name, "id": 5, "nonsense": 1}))
        assert bad.value.id == 5


@pytest.mark.parametrize("format", [JSON, MSGPACK])
@pytest.mark.parametrize("message", [{"type": "x" * 5000}, {"type": "ping", "x" * 5000: 1}])
def test_a_bad_message_is_not_quoted_at_length(format: Format, message: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as bad:
        format.decode(encode(format, message))
    assert len(bad.value.reason) <= 200


@pytest.mark.parametrize(
    "data", [b"1e999", b"123456789012345678901234567890", b"-9223372036854775809", b"NaN", b"01", b"", b'"\\ud800"']
)
def test_json_that_not_every_client_can_read_is_refused(data: bytes) -> None:
    with pytest.raises(CommandError) as refused:
        checked_json(data, 1000)
    assert refused.value.error.code == 107


@pytest.mark.parametrize("data", [{1: 2}, b"binary", float("nan"), float("inf"), msgspec.msgpack.Ext(1, b"x")])
def test_msgpack_that_has_no_json_form_is_refused(data: Any) -> None:
    with pytest.raises(CommandError) as refused:
        MSGPACK.data_as_json(msgspec.msgpack.encode([data]), 1000)
    assert refused.value.error.code == 107


@pytest.mark.parametrize("format", [JSON, MSGPACK])
def test_depth_is_bounded(format: Format) -> None:
    def nested(depth: int) -> bytes:
        value: Any = 0
        for _ in range(depth):
            value = [value]
        return encode(format, value)

    format.data_as_json(nested(MAX_DEPTH), 10_000)
    with pytest.raises(CommandError):
        format.data_as_json(nested(MAX_DEPTH + 1), 10_000)


def test_many_brackets_are_not_depth() -> None:
    assert checked_json(b"[" + b"[]," * 200 + b"[]]", 10_000)


def test_size_is_checked_first() -> None:
    with pytest.raises(CommandError) as refused:
        checked_json(b"x" * 11, 10)
    assert refused.value.error.code == 106


def test_the_same_value_has_one_canonical_form() -> None:
    """P4."""
    assert canonical(b'{"b": 1, "a": [1, 2]}') == canonical(b'{"a":[1,2],"b":1}')
    assert canonical(b"[1,2]") != canonical(b"[2,1]")


@given(values, st.one_of(st.none(), st.text(max_size=5)), st.one_of(st.none(), st.dictionaries(st.text(), st.text())))
def test_an_envelope_survives(value: Any, key: str | None, tags: dict[str, str] | None) -> None:
    data = json.dumps(value).encode()
    publication = unpack(pack(Publication(msgspec.Raw(data), "ann", "s1", key, tags)))
    assert bytes(publication.data) == data
    assert (publication.user, publication.session, publication.key, publication.tags) == ("ann", "s1", key, tags)


@given(st.binary(max_size=40))
def test_an_envelope_of_another_release_is_recognised(data: bytes) -> None:
    """P6."""
    try:
        unpack(data)
    except UnknownVersion:
        return
    assert data[:1] == b"1"


def test_fields_without_a_value_are_left_out() -> None:
    assert JSON.frame(Ok(id=1)).payload == b'{"type":"ok","id":1}'
    message = Message(room="r", sender=Publisher(user="a", session="s"))
    assert JSON.frame(message).payload == b'{"type":"message","room":"r","from":{"user":"a","session":"s"}}'


@pytest.mark.parametrize("data", [b"1e999", b"9" * 30, b'"\xff"', b"[" * 100_000, b"nonsense"])
def test_what_was_written_into_redis_by_hand_is_null_as_msgpack(data: bytes) -> None:
    assert bytes(MSGPACK.data_from_json(data)) == b"\xc0"
