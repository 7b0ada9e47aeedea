"""Members that missed something and are to be told: not all in one moment, as each may come back with questions."""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.gateway.room import Room

if TYPE_CHECKING:
    from app.gateway.session import Session

#: Members told per second while only few are to be: they do not wait for all of the spread.
FEW_PER_SECOND = 200


class Shortfalls:
    """Who is still to be told, each at a moment of its own (invariant 6). `tell` writes to one member."""

    def __init__(self, spread: float, tell: Callable[[Room, "Session"], None]) -> None:
        """`spread`: seconds within which all are told; 0: at once."""
        self._spread = spread
        self._tell = tell
        self._waiting = 0

    def note(self, room: Room) -> None:
        """All members are to be told. Until its turn nothing of the room is written to a member, so that what it hears
        afterwards begins with being told (invariant 1)."""
        waiting = room.uninformed or set()
        fresh = {member for member in room.members - waiting if not room.late or member not in room.late}
        room.uninformed = waiting | fresh or None
        room.dirty = True
        if not self._spread:
            self.tell_all(room)
            return
        later = asyncio.get_running_loop().call_later
        for session in fresh:
            self._waiting += 1
            within = min(self._spread, self._waiting / FEW_PER_SECOND)
            later(random.random() * within, self._turn, room, session)

    def tell_all(self, room: Room) -> None:
        """Those that still wait do not wait any longer."""
        for session in tuple(room.uninformed or ()):
            self._tell_one(room, session)

    def _turn(self, room: Room, session: "Session") -> None:
        self._waiting -= 1
        self._tell_one(room, session)

    def _tell_one(self, room: Room, session: "Session") -> None:
        if room.uninformed is None or session not in room.uninformed:  # it has left, or was told
            return
        self._tell(room, session)
        room.inform(session)
