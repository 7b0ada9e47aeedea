"""Who may do what: the claims of a session and the patterns they hold."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self


def matches(patterns: tuple[str, ...], room: str) -> bool:
    """Whether one of the patterns covers the room; `*` matches any run of characters, `:` included (A5)."""
    return any(pattern in ("*", room) or ("*" in pattern and _covers(pattern, room)) for pattern in patterns)


def _covers(pattern: str, room: str) -> bool:
    # Taking each part at its first place is enough, as `*` takes anything: no backtracking, so no pattern is slow
    # (the same as a regular expression, `a*a*a*a*b` takes minutes on a long name).
    first, *middle, last = pattern.split("*")
    at, end = len(first), len(room) - len(last)
    if at > end or not room.startswith(first) or not room.endswith(last):
        return False
    for part in middle:
        at = room.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


@lru_cache(maxsize=4096)
def _shared(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return patterns


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. `expires_at` is Unix time in seconds; None: never."""

    user: str
    expires_at: float | None = None
    rooms: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()

    @classmethod
    def shared(cls, user: str, expires_at: float | None, rooms: Iterable[str], publish: Iterable[str]) -> Self:
        """Claims whose parts are the very objects of other sessions with the same user or rights: thousands of
        sessions then cost the memory of one."""
        return cls(sys.intern(user), expires_at, _shared(tuple(rooms)), _shared(tuple(publish)))

    def may_subscribe(self, room: str) -> bool:
        return matches(self.rooms, room)

    def may_publish(self, room: str) -> bool:
        return matches(self.publish, room)
