"""What goes between nodes, or stays in Redis, as JSON behind a version byte: another release may read it (P6)."""

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class UnknownVersion(ValueError):
    """Written by a release that this one does not know, or damaged."""


class Versioned(Generic[T]):
    """Packs and unpacks one form: a msgspec type, and the version of it that this release writes and reads.

    A field more at the end needs no other version: who does not know it leaves it out. What an older node would
    misunderstand does, and then one release reads both and writes the old one, and only the next one writes the new
    one: two neighbours share Redis during a rollout."""

    __slots__ = ("_decoder", "_encoder", "version")

    def __init__(self, kind: Any, version: bytes) -> None:
        self.version = version
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)

    def pack(self, value: T) -> bytes:
        return self.version + self._encoder.encode(value)

    def unpack(self, data: bytes) -> T:
        """Raises UnknownVersion."""
        if data[:1] != self.version:
            raise UnknownVersion(f"version {data[:1]!r}")
        try:
            return self._decoder.decode(memoryview(data)[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnknownVersion(str(error)) from None
