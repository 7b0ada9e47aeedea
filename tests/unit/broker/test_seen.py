"""The newest positions that a node knows of (P3); what scripts do with them is tried on real servers."""

import pytest

from app.broker import seen
from app.broker.base import NO_POSITION, Position
from app.broker.seen import BEYOND, Seen

ROOM, OTHER = b"room", b"other"


def known(*noted: tuple[Position, bytes | None]) -> Seen:
    """A node that is subscribed to ROOM and has noted these."""
    made = Seen({ROOM})
    for position, envelope in noted:
        assert made.note(ROOM, position, envelope)
    return made


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


def test_nothing_is_known_at_first() -> None:
    assert known().position(ROOM) == NO_POSITION
    assert known().hash_in_doubt(ROOM) is None


def test_the_newest_stays_whatever_comes_late() -> None:
    """The two connections are not in step."""
    made = known((at(5), b"five"), (at(3), b"three"), (at(4), None))
    assert made.position(ROOM) == at(5)


def test_another_epoch_takes_its_place() -> None:
    assert known((at(5), b"five"), (at(1, "new"), b"one")).position(ROOM) == at(1, "new")


def test_the_same_again_is_no_contradiction() -> None:
    """A node hears what it has published itself."""
    made = known((at(5), b"five"), (at(5), b"five"), (at(5), None))
    assert made.position(ROOM) == at(5)


def test_an_envelope_that_was_not_known_is_learned() -> None:
    made = known((at(5), None), (at(5), b"five"))
    made.doubt()
    assert made.hash_in_doubt(ROOM) == hash(b"five")


def test_another_publication_at_the_same_position_ends_the_epoch() -> None:
    made = known((at(5), b"five"))
    assert not made.note(ROOM, at(5), b"another")
    assert made.position(ROOM) == at(BEYOND)
    assert made.note(ROOM, at(6), b"six")
    assert made.position(ROOM) == at(BEYOND)
    assert made.note(ROOM, at(1, "new"), b"one")
    assert made.position(ROOM) == at(1, "new")


class TestDoubt:
    def test_a_new_connection_asks_once(self) -> None:
        made = known((at(5), b"five"))
        assert made.hash_in_doubt(ROOM) is None
        made.doubt()
        assert made.hash_in_doubt(ROOM) == hash(b"five")
        made.settle(ROOM, at(5), None, made.doubts)
        assert made.hash_in_doubt(ROOM) is None
        assert made.position(ROOM) == at(5)

    def test_it_stays_until_a_read_has_settled_it(self) -> None:
        """A publish in between must not hide what was before it."""
        made = known((at(5), b"five"))
        made.doubt()
        made.note(ROOM, at(6), b"six")
        assert (made.position(ROOM), made.hash_in_doubt(ROOM)) == (at(5), hash(b"five"))
        made.settle(ROOM, at(6), b"six", made.doubts)
        assert (made.position(ROOM), made.hash_in_doubt(ROOM)) == (at(6), None)

    def test_a_read_from_before_settles_nothing(self) -> None:
        made = known((at(5), b"five"))
        before = made.doubts
        made.doubt()
        made.settle(ROOM, at(5), None, before)
        assert made.hash_in_doubt(ROOM) == hash(b"five")

    def test_what_came_while_it_was_read_is_newer(self) -> None:
        made = known((at(5), b"five"))
        made.settle(ROOM, at(4), b"four", made.doubts)
        assert made.position(ROOM) == at(5)


def test_rooms_without_members_are_remembered_for_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 2: bounded."""
    monkeypatch.setattr(seen, "OTHERS", 3)
    made = known((at(1), b"one"))
    made.left(ROOM)  # and came back at once
    for number in range(10):
        made.note(b"other%d" % number, at(number + 1), b"x")
    remembered = [number for number in range(10) if made.position(b"other%d" % number) != NO_POSITION]
    assert remembered == [7, 8, 9]
    assert made.position(ROOM) == at(1)
    made.settle(OTHER, at(1), None, made.doubts)
    assert made.position(b"other7") == NO_POSITION
