"""A publication on its way between nodes, and in a room's history."""

from msgspec import Raw, Struct

from app.wire.versioned import Versioned


class Publication(Struct, array_like=True, frozen=True):
    """One message in a room. `data` is JSON; `user` and `session` are absent for what came by the server API."""

    data: Raw
    user: str | None = None
    session: str | None = None
    key: str | None = None
    tags: dict[str, str] | None = None


_envelope: Versioned[Publication] = Versioned(Publication, b"1")

pack = _envelope.pack
unpack = _envelope.unpack
