"""Who may do what: the claims of a session and the patterns they hold."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import msgspec
from msgspec import UNSET, UnsetType


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
    """What a verified token says. Times are Unix times in seconds; `expires_at` None: never."""

    user: str
    expires_at: float | None = None
    rooms: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    #: By which a token can be revoked; None: it does not say.
    jti: str | None = None
    issued_at: float | None = None

    @classmethod
    def shared(
        cls,
        user: str,
        expires_at: float | None,
        rooms: Iterable[str],
        publish: Iterable[str],
        jti: str | None = None,
        issued_at: float | None = None,
    ) -> Self:
        """Claims whose parts are the very objects of other sessions with the same user or rights: thousands of
        sessions then cost the memory of one."""
        return cls(sys.intern(user), expires_at, _shared(tuple(rooms)), _shared(tuple(publish)), jti, issued_at)

    def may_subscribe(self, room: str) -> bool:
        return matches(self.rooms, room)

    def may_publish(self, room: str) -> bool:
        return matches(self.publish, room)


class Rights(msgspec.Struct):
    """New claims for a session that lasts; what is not set stays as it is."""

    expires_at: float | UnsetType | None = UNSET
    rooms: tuple[str, ...] | UnsetType = UNSET
    publish: tuple[str, ...] | UnsetType = UNSET
    jti: str | UnsetType | None = UNSET
    issued_at: float | UnsetType | None = UNSET

    @classmethod
    def of(cls, claims: Claims) -> Self:
        """All of a token's."""
        return cls(claims.expires_at, claims.rooms, claims.publish, claims.jti, claims.issued_at)

    def of_a_session(self, claims: Claims) -> Claims:
        """The claims that it has from now on."""
        return Claims.shared(
            claims.user,
            claims.expires_at if self.expires_at is UNSET else self.expires_at,
            claims.rooms if self.rooms is UNSET else self.rooms,
            claims.publish if self.publish is UNSET else self.publish,
            claims.jti if self.jti is UNSET else self.jti,
            claims.issued_at if self.issued_at is UNSET else self.issued_at,
        )
