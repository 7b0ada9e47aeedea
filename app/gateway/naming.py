"""What a room may be called, and which namespace's options it has."""

import re

from app.codes import BAD_REQUEST, PERMISSION_DENIED, UNKNOWN_ROOM, CommandError
from app.settings import Namespace, Settings

#: Messages to a user arrive under this room name; nobody subscribes to it.
USER_PREFIX = "#"

_FORBIDDEN = re.compile(r"[{}\s\x00-\x1f\x7f-\x9f]")  # P7


def namespace_of(room: str) -> str:
    """The name of the namespace that a room's name says it is in."""
    prefix, colon, _ = room.partition(":")
    return prefix if colon else "default"


def options_of(room: str, settings: Settings) -> Namespace:
    """The options of a room as a client or the API named it.

    Raises CommandError 107 for a name that cannot be, 103 for a user's, 102 for one whose prefix names no namespace."""
    if not room or len(room.encode(errors="surrogatepass")) > settings.max_room_name:
        raise CommandError(BAD_REQUEST, f"a room name has 1 to {settings.max_room_name} bytes")
    if _FORBIDDEN.search(room) or any("\ud800" <= character <= "\udfff" for character in room):
        raise CommandError(BAD_REQUEST, "a room name has no spaces, braces or control characters")
    if room.startswith(USER_PREFIX):
        raise CommandError(PERMISSION_DENIED, f"rooms that begin with {USER_PREFIX} belong to users")
    options = settings.namespace_of(room)
    if options is None:
        raise CommandError(UNKNOWN_ROOM, "the room's prefix names no namespace")
    return options
