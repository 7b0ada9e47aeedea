"""The newest positions that a node knows of: what shows that the data of a server went back (P3)."""

from collections import deque
from collections.abc import Container

from app.broker.base import NO_POSITION, Position

#: Rooms without members here that are remembered, because this node published there; the oldest go first.
OTHERS = 10_000

#: More than any room's top: where a script is shown this, the epoch ends.
BEYOND = 2**53


class Seen:
    """By channel. Scripts are shown the position and begin a new epoch where the room's top is below it.

    A top that is not below it shows nothing when others have published since: then another publication comes at the
    same position. After a connection was made anew it may have come unheard, so the room's next read asks for it."""

    __slots__ = ("_doubts", "_known", "_others", "_subscribed")

    def __init__(self, subscribed: Container[bytes]) -> None:
        self._subscribed = subscribed
        #: Position, hash of its envelope (None: unknown), and how many doubts there had been. A plain tuple: it is made
        #: for every publication heard.
        self._known: dict[bytes, tuple[Position, int | None, int]] = {}
        self._others: deque[bytes] = deque()
        self._doubts = 0

    @property
    def doubts(self) -> int:
        """How often a connection was made: each time the server may have another past."""
        return self._doubts

    def doubt(self) -> None:
        self._doubts += 1

    def position(self, channel: bytes) -> Position:
        known = self._known.get(channel)
        return NO_POSITION if known is None else known[0]

    def hash_in_doubt(self, channel: bytes) -> int | None:
        """Hash of the envelope that should be at the position, where that has to be looked at."""
        known = self._known.get(channel)
        return None if known is None or known[2] == self._doubts else known[1]

    def note(self, channel: bytes, position: Position, envelope: bytes | None) -> bool:
        """A publication was heard, or accepted; `envelope` None: not known which one has this position.

        False: it is not the one that was there before, so the room's next script ends the epoch.

        A position in doubt stays until a read has settled it. Of different epochs the later one to arrive counts: the
        other connection may be behind, and then the next comparison is in vain."""
        known = self._known.get(channel)
        if known is None:
            if channel not in self._subscribed:
                self.left(channel)
        elif known[0].epoch == position.epoch:
            old, its_hash, doubts = known
            if old.offset == position.offset and envelope is not None and its_hash is not None:
                if hash(envelope) != its_hash:
                    self.distrust(channel)
                    return False
                return True
            if old.offset > position.offset or (doubts != self._doubts and channel in self._subscribed):
                return True
            if old.offset == position.offset and envelope is None:
                return True
        self._known[channel] = (position, None if envelope is None else hash(envelope), self._doubts)
        return True

    def distrust(self, channel: bytes) -> None:
        """The offsets of the room's epoch have been handed out twice."""
        self._known[channel] = (Position(self._known[channel][0].epoch, BEYOND), None, self._doubts)

    def settle(self, channel: bytes, top: Position, envelope: bytes | None, doubts: int) -> None:
        """A read has found this top, and what it was asked for; `doubts` is from when it was sent."""
        its_hash = None if envelope is None else hash(envelope)
        known = self._known.get(channel)
        if known is None:
            if channel not in self._subscribed:
                self.left(channel)
        elif known[0].epoch == top.epoch and known[0].offset >= top.offset:
            top, its_hash = known[0], known[1] if known[1] is not None or known[0] != top else its_hash
        self._known[channel] = (top, its_hash, doubts)

    def left(self, channel: bytes) -> None:
        """The node is not, or no longer, subscribed: remembered for some time."""
        self._others.append(channel)
        if len(self._others) > OTHERS:
            oldest = self._others.popleft()
            if oldest not in self._subscribed:
                self._known.pop(oldest, None)
