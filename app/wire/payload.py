"""The `data` of a publication: checked once where it comes in, kept as JSON."""

import msgspec

from app.codes import BAD_REQUEST, LIMIT_EXCEEDED, CommandError

#: Deeper nesting is refused, so that no reader anywhere runs out of stack.
MAX_DEPTH = 64


def checked_json(data: bytes, limit: int) -> bytes:
    """`data` itself if every client can read it. Raises CommandError 107 if not, 106 above `limit` bytes."""
    if len(data) > limit:
        raise CommandError(LIMIT_EXCEEDED, f"data is larger than {limit} bytes")
    try:
        value = msgspec.json.decode(data)
        msgspec.msgpack.encode(value)  # numbers beyond 64 bits
    except (msgspec.DecodeError, OverflowError, UnicodeDecodeError) as error:
        raise CommandError(BAD_REQUEST, f"data: {error}") from None
    except RecursionError:
        raise CommandError(BAD_REQUEST, f"data is nested deeper than {MAX_DEPTH}") from None
    # Each level has a bracket: without that many there is nothing to look for.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise CommandError(BAD_REQUEST, f"data is nested deeper than {MAX_DEPTH}")
    return data


def json_of_msgpack(data: bytes, limit: int) -> bytes:
    """MessagePack as JSON. Raises CommandError 107 for what JSON cannot say (binary, extensions, NaN, other keys)."""
    if len(data) > limit:
        raise CommandError(LIMIT_EXCEEDED, f"data is larger than {limit} bytes")
    try:
        value = msgspec.msgpack.decode(data)
        _refuse_beyond_json(value)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise CommandError(BAD_REQUEST, f"data: {error}") from None
    except RecursionError:
        raise CommandError(BAD_REQUEST, f"data is nested deeper than {MAX_DEPTH}") from None
    return checked_json(msgspec.json.encode(value), limit)


def canonical(data: bytes) -> bytes:
    """The same value always as the same bytes: to tell whether two publications say the same (P4)."""
    return msgspec.json.encode(msgspec.json.decode(data), order="sorted")


def _refuse_beyond_json(value: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ValueError("the keys of a map must be strings")
                _refuse_beyond_json(item, depth + 1)
        case list():
            for item in value:
                _refuse_beyond_json(item, depth + 1)
        case float() if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("NaN and infinity have no JSON form")
        case str() | int() | float() | None:
            pass
        case _:
            raise ValueError(f"{type(value).__name__} has no JSON form")


def _depth(value: object) -> int:
    """Levels of nesting, without recursion."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, level = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, level + 1) for child in children)
    return deepest
