"""What waits for a client that does not read: bounded in bytes, with the namespace's slow-consumer policy (O1-O3).

Only used while the connection takes no more; bytes handed to a transport cannot be dropped any more.
"""

from collections import OrderedDict
from collections.abc import Iterator

from app.gateway.delivery import Delivery
from app.settings import SlowConsumer
from app.wire.frames import Frame
from app.wire.plain import Format


class Overflow(Exception):
    """The outbox is full and the policy allows no loss: the client has to come back (3008)."""


class Entry:
    """A message for one member. Control messages have no delivery and are never dropped."""

    __slots__ = ("delivery", "droppable", "frame", "own", "skipped")

    def __init__(self, frame: Frame, delivery: Delivery | None = None, own: bool = False, skipped: int = 0) -> None:
        self.frame = frame
        self.delivery = delivery
        #: Whether the member published it itself and only hears the position (O2).
        self.own = own
        #: Publications of the room before this one that this member does not get.
        self.skipped = skipped
        self.droppable = False

    @property
    def missed(self) -> int:
        """How many publications the member does not get if it does not get this one."""
        return 1 + self.skipped + (self.delivery.skipped if self.delivery is not None else 0)

    def rendered(self, format: Format) -> Frame:
        """The frame as this member gets it: shared with the others unless it has to tell more."""
        if self.delivery is None or not (self.own or self.skipped):
            return self.frame
        if self.own:
            return self.delivery.frame_for_sender(format, self.skipped)
        return self.delivery.frame_for_one(format, self.skipped)


class Outbox:
    """First in, first out. `size` is in bytes as they would go to the socket uncompressed."""

    __slots__ = ("_entries", "_limit", "_newest_by_key", "_next", "owed", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._newest_by_key: dict[tuple[str, str], int] = {}
        self._next = 0
        self.size = 0
        #: Dropped publications by room that no entry here can tell of: the room's next one has to.
        self.owed: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def push(self, entry: Entry, policy: SlowConsumer = SlowConsumer.DISCONNECT) -> int:
        """Adds an entry; returns how many publications were dropped for it. Raises Overflow, and adds nothing then.

        What is dropped is credited to the next publication of its room (O2)."""
        dropped = self._conflate(entry) if policy is SlowConsumer.CONFLATE else 0
        if self.size + len(entry.frame.wire) > self._limit and self._entries:
            if policy is not SlowConsumer.DROP_OLDEST:
                raise Overflow
            dropped += self._drop_oldest(self.size + len(entry.frame.wire) - self._limit)
        entry.droppable = policy is SlowConsumer.DROP_OLDEST
        if entry.delivery is not None:
            entry.skipped += self.owed.pop(entry.delivery.room_name, 0)
        self.append(entry)
        return dropped

    def append(self, entry: Entry) -> None:
        """Adds an entry whatever the size: the last words of a session."""
        number = self._next
        self._next += 1
        self._entries[number] = entry
        self.size += len(entry.frame.wire)
        key = _key_of(entry)
        if key is not None:
            self._newest_by_key[key] = number

    def _conflate(self, entry: Entry) -> int:
        """Takes out the older publication with the same key of the same room."""
        key = _key_of(entry)
        number = self._newest_by_key.get(key) if key is not None else None
        if number is None:
            return 0
        self._drop(number)
        return 1

    def _drop_oldest(self, needed: int) -> int:
        """Drops publications from the front, of rooms that allow it. Raises Overflow if that frees too little."""
        victims, freed = [], 0
        for number, entry in self._entries.items():
            if freed >= needed:
                break
            if entry.droppable:
                victims.append(number)
                freed += len(entry.frame.wire)
        if freed < needed:
            raise Overflow
        for number in victims:
            self._drop(number)
        return len(victims)

    def _drop(self, number: int) -> None:
        victim = self._remove(number)
        room = _room_of(victim)
        assert room is not None
        heir = next((e for n, e in self._entries.items() if n > number and _room_of(e) == room), None)
        if heir is not None:
            heir.skipped += victim.missed
        else:
            self.owed[room] = self.owed.get(room, 0) + victim.missed

    def _remove(self, number: int) -> Entry:
        entry = self._entries.pop(number)
        self.size -= len(entry.frame.wire)
        key = _key_of(entry)
        if key is not None and self._newest_by_key.get(key) == number:
            del self._newest_by_key[key]
        return entry

    def forget_room(self, room: str) -> None:
        """Removes the publications of a room that the member has left (O3)."""
        for number in [n for n, entry in self._entries.items() if _room_of(entry) == room]:
            self._remove(number)
        self.owed.pop(room, None)

    def pop_all(self) -> Iterator[Entry]:
        """Gives the entries in order, each removed before it is given; may be left early."""
        while self._entries:
            yield self._remove(next(iter(self._entries)))


def _room_of(entry: Entry) -> str | None:
    return entry.delivery.room_name if entry.delivery is not None else None


def _key_of(entry: Entry) -> tuple[str, str] | None:
    if entry.delivery is None or entry.delivery.publication.key is None:
        return None
    return entry.delivery.room_name, entry.delivery.publication.key
