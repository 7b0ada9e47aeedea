"""Connections that get the same bytes: the innermost loop of the fan-out (O5), in C where that was built."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from app import native
from app.gateway.connection import NO_SOCKET

if TYPE_CHECKING:
    from app.gateway.session import Session

#: How many sessions are looked for one by one.
FEW = 8


class Writers:
    """An immutable snapshot, so that a pass over it goes on safely whatever changes meanwhile."""

    __slots__ = ("_sockets", "_writes")

    def __init__(self, sessions: Sequence["Session"]) -> None:
        """Each has a `raw_write`: it reads what it is sent, and its transport holds no unsent bytes."""
        self._writes = tuple(session.raw_write for session in sessions if session.raw_write is not None)
        sockets = [session.connection.socket for session in sessions]
        #: Descriptors of the same connections; empty where one has none.
        self._sockets = array("i", () if NO_SOCKET in sockets else sockets)

    def __len__(self) -> int:
        return len(self._writes)

    def around(self, apart: Collection["Session"]) -> list[tuple[int, int]]:
        """The ranges (from, up to) between these sessions. Those that are not among the writers do not matter."""
        ranges, start = [], 0
        for cut in sorted(self._places(apart)):
            if cut > start:
                ranges.append((start, cut))
            start = cut + 1
        if start < len(self._writes):
            ranges.append((start, len(self._writes)))
        return ranges

    def _places(self, sessions: Collection["Session"]) -> Iterable[int]:
        """Where they stand. A few are looked for without a step of Python for each member: a publisher is the rule."""
        if len(sessions) > FEW or not self._sockets:
            writes = {session.raw_write for session in sessions}
            return (index for index, write in enumerate(self._writes) if write in writes)
        return [place for session in sessions if (place := self._place(session.connection.socket)) is not None]

    def _place(self, socket: int) -> int | None:
        try:
            return self._sockets.index(socket)
        except ValueError:
            return None

    def write(self, send: native.Send | None, data: bytes, start: int, stop: int) -> None:
        """Writes to those from `start` up to `stop`. `send`: the loop in C."""
        if self._sockets and send is not None:
            self._write_in_c(send, data, start, stop)
        else:
            for write in self._writes[start:stop]:
                write(data)

    def _write_in_c(self, send: native.Send, data: bytes, start: int, stop: int) -> None:
        count = min(stop, len(self._writes)) - start
        unsent = array("i", bytes(2 * count * self._sockets.itemsize))
        first = self._sockets.buffer_info()[0] + start * self._sockets.itemsize
        left = send(first, count, data, len(data), unsent.buffer_info()[0])
        for number in range(left):
            index, sent = unsent[2 * number], unsent[2 * number + 1]
            self._writes[start + index](data[sent:])
