"""A publication on its way between nodes: the envelope with a version byte (P6)."""

import msgspec
from msgspec import Raw, Struct

#: The version that this release writes and reads; it is the first one. A field more at the end needs no other: who does
#: not know it leaves it out. What an older node would misunderstand does, and then one release reads both and writes
#: the old one, and only the next one writes the new one: two neighbours share Redis during a rollout.
VERSION = b"1"


class UnknownVersion(ValueError):
    """The envelope was written by a release that this one does not know."""


class Publication(Struct, array_like=True, frozen=True):
    """One message in a room. `data` is JSON; `user` and `session` are absent for what came by the server API."""

    data: Raw
    user: str | None = None
    session: str | None = None
    key: str | None = None
    tags: dict[str, str] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Publication)


def pack(publication: Publication) -> bytes:
    return VERSION + _encoder.encode(publication)


def unpack(envelope: bytes) -> Publication:
    """Raises UnknownVersion for an envelope of an unknown release, or one that is damaged."""
    if envelope[:1] != VERSION:
        raise UnknownVersion(f"envelope version {envelope[:1]!r}")
    try:
        return _decoder.decode(memoryview(envelope)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownVersion(str(error)) from None
