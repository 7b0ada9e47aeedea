"""Who may do what: the claims of a session and the patterns they hold."""

import re
from dataclasses import dataclass
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


def matches(patterns: tuple[str, ...], room: str) -> bool:
    """Whether one of the patterns covers the room; `*` matches any run of characters, `:` included (A5)."""
    return any(pattern == "*" or _compiled(pattern).fullmatch(room) is not None for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. `expires_at` is Unix time in seconds; None: never.

    Made by `tokens.py`, which interns the parts, so that thousands of sessions with the same rights share them."""

    user: str
    expires_at: float | None = None
    rooms: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()

    def may_subscribe(self, room: str) -> bool:
        return matches(self.rooms, room)

    def may_publish(self, room: str) -> bool:
        return matches(self.publish, room)


ANONYMOUS = Claims(user="")
