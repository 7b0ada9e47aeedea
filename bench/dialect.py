"""What raw WebSocket clients say to one kind of server: to become a member, to publish, to stay."""

from collections.abc import Callable
from dataclasses import dataclass

#: Messages and, for each, a part of the message that answers it; "": nothing is waited for.
Script = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Line:
    """How one connection begins."""

    target: str
    script: Script = ()
    headers: tuple[str, ...] = ()

    def text(self) -> str:
        """As the load client reads it."""
        return "\t".join([self.target, "|".join(self.headers), *(part for step in self.script for part in step)])


@dataclass(frozen=True)
class Dialect:
    #: The n-th member's beginning, and the publisher's.
    member: Callable[[int], Line]
    publisher: Callable[[], Line]
    #: What is sent to publish a text; the text needs no escapes in JSON.
    publish: Callable[[str], str]
    #: The text of the server's own pings, and the answer; None: it has only those of WebSocket.
    ping: tuple[str, str] | None = None


def text_of(size: int) -> str:
    """A text of `size` characters, with the place for the number of the publication."""
    return "{seq}" + "x" * (size - len("seq=000000000;"))
