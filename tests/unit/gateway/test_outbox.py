"""The outbox against a naive model: bounded, in order, and honest about what it left out."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from app.broker.base import NO_POSITION
from app.gateway.delivery import Delivery
from app.gateway.outbox import Entry, Outbox, Overflow
from app.settings import SlowConsumer
from app.wire.frames import Frame
from app.wire.plain import JSON
from app.wire.publication import Publication

LIMIT = 600

CONTROL = Frame(b'{"type":"ok"}', text=True)


def publication(room: str, number: int, key: str | None = None) -> Entry:
    delivery = Delivery(room, NO_POSITION, Publication(Raw(str(number).encode()), key=key))
    return Entry(delivery.frame(JSON), delivery)


def number_of(entry: Entry) -> int:
    assert entry.delivery is not None
    return int(bytes(entry.delivery.publication.data))


@dataclass
class Sent:
    """What was pushed into one room, and what came out of it."""

    pushed: list[int] = field(default_factory=list)
    got: list[tuple[int, int]] = field(default_factory=list)

    def explained(self, owed: int) -> bool:
        """Every gap is told by the publication after it, or owed to the next one."""
        expected = iter(self.pushed)
        for number, skipped in self.got:
            left_out = [next(expected) for _ in range(skipped)]
            if next(expected) != number or number in left_out:
                return False
        return len(list(expected)) == owed


@pytest.mark.parametrize("policy", list(SlowConsumer))
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "k", "l"])),
            st.just("control"),
            st.just("pop"),
        ),
        max_size=40,
    )
)
def test_what_comes_out_is_bounded_ordered_and_explained(policy: SlowConsumer, steps: list[object]) -> None:
    outbox = Outbox(LIMIT)
    rooms = {"a": Sent(), "b": Sent()}
    controls_pushed = controls_got = 0

    def note(entry: Entry) -> None:
        nonlocal controls_got
        if entry.delivery is None:
            controls_got += 1
        else:
            rooms[entry.delivery.room_name].got.append((number_of(entry), entry.skipped))

    for number, step in enumerate(steps):
        before = outbox.size
        try:
            if step == "pop":
                for entry in outbox.pop_all():
                    note(entry)
                    break
            elif step == "control":
                outbox.push(Entry(CONTROL))
                controls_pushed += 1
            else:
                room, key = step  # type: ignore[misc]
                outbox.push(publication(room, number, key), policy)
                rooms[room].pushed.append(number)
        except Overflow:
            if policy is SlowConsumer.DISCONNECT:
                assert outbox.size == before
            break
        assert outbox.size <= LIMIT
    else:
        for entry in outbox.pop_all():
            note(entry)
        assert outbox.size == 0
        assert controls_got == controls_pushed, "control messages are never dropped"
        for name, sent in rooms.items():
            assert sent.explained(outbox.owed.get(name, 0)), (name, sent, outbox.owed)


def test_with_conflation_only_the_newest_of_a_key_stays() -> None:
    outbox = Outbox(LIMIT)
    for number in range(100):
        outbox.push(publication("a", number, "k"), SlowConsumer.CONFLATE)
    assert [(number_of(entry), entry.skipped) for entry in outbox.pop_all()] == [(99, 99)]
    assert outbox.owed == {}


def test_what_has_no_key_fills_the_outbox_of_a_conflating_namespace() -> None:
    outbox = Outbox(LIMIT)
    number = 0
    while outbox.size + len(publication("a", number).frame.wire) <= LIMIT:
        assert outbox.push(publication("a", number), SlowConsumer.CONFLATE) == 0
        number += 1
    with pytest.raises(Overflow):
        outbox.push(publication("a", number), SlowConsumer.CONFLATE)


def test_a_namespace_that_allows_no_loss_loses_nothing_to_one_that_does() -> None:
    outbox = Outbox(LIMIT)
    outbox.push(publication("strict", 0), SlowConsumer.DISCONNECT)
    for number in range(50):
        outbox.push(publication("leaky", number), SlowConsumer.DROP_OLDEST)
    assert number_of(next(outbox.pop_all())) == 0


def test_one_message_larger_than_the_outbox_waits_alone() -> None:
    outbox = Outbox(10)
    outbox.push(Entry(CONTROL))
    with pytest.raises(Overflow):
        outbox.push(Entry(CONTROL))
