"""The body of an API call: read within its bounds, and decoded strictly."""

import asyncio
from functools import cache
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from msgspec import Raw, Struct
from starlette.requests import ClientDisconnect

from app import codes
from app.codes import CommandError
from app.gateway.gateway import Gateway
from app.http.errors import HttpError

#: How long a body may take to arrive, in seconds.
BODY_TIMEOUT = 30.0


class Name:
    """A member's name. Two equal ones are two keys of a dict, so that nothing that was sent gets lost."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Call(Struct, forbid_unknown_fields=True, kw_only=True):
    """What one API call carries. What the server makes of it must be what every proxy before it read: no unknown
    names, and no name twice."""


T = TypeVar("T", bound=Call)

#: Where the names of a call's fields stand: on top, or those of a batch's commands. `data` is looked at by nobody.
_Fields = dict[Name, Raw]
_NestedFields = dict[Name, list[dict[Name, dict[Name, Raw]]]]


async def read(request: Request, kind: type[T], *, nested: bool = False) -> T:
    """The body as a `kind`. `nested`: it is a list of commands (see `decode`). Raises CommandError 106, 107."""
    gateway: Gateway = request.app.state.gateway
    return decode(await _read(request, gateway), kind, nested=nested)


async def _read(request: Request, gateway: Gateway) -> bytes:
    """Stops to read as soon as it is too much, whatever the head said. Raises CommandError 106, 107."""
    limit = gateway.settings.max_body_bytes
    parts = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for part in request.stream():
                if len(parts) + len(part) > limit:
                    gateway.counters.limit_hits["max_body_bytes"] += 1
                    raise CommandError(codes.LIMIT_EXCEEDED, f"the body is larger than {limit} bytes")
                parts += part
    except TimeoutError:
        raise HttpError(codes.BAD_REQUEST, "the body did not arrive in time", status=408) from None
    except ClientDisconnect:
        raise CommandError(codes.BAD_REQUEST, "the body is not complete") from None  # nobody reads this
    return bytes(parts)


def decode(data: bytes, kind: type[T], *, nested: bool = False) -> T:
    """The call that `data` is. Raises CommandError 107 with the place of what is wrong."""
    try:
        call: T = _decoder(kind).decode(data)
        fields = _decoder(_NestedFields if nested else _Fields).decode(data)
    except msgspec.DecodeError as error:
        raise CommandError(codes.BAD_REQUEST, f"body: {error}") from None
    except UnicodeDecodeError:
        raise CommandError(codes.BAD_REQUEST, "body: not UTF-8") from None
    except RecursionError:
        raise CommandError(codes.BAD_REQUEST, "body: nested too deeply") from None
    _refuse_twice(fields)
    return call


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_name)


def _name(kind: type, text: str) -> Name:
    assert kind is Name
    return Name(text)


def _refuse_twice(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_twice(item)
    elif isinstance(value, dict):
        names = {name.text for name in value}
        if len(names) < len(value):
            raise CommandError(codes.BAD_REQUEST, "body: an object has a member twice")
        for item in value.values():
            _refuse_twice(item)
