"""Who is closed as slow twice within a minute is not replayed to again: no endless loop (R3)."""

import pytest

from app.gateway import laggards
from app.gateway.laggards import Laggards, client_key
from tests.support.in_process import Node, Peer


def test_once_is_forgiven_twice_within_a_minute_is_not_and_after_another_minute_it_is() -> None:
    known = Laggards()
    known.closed("ann", 100)
    assert not known.given_up("ann", 101)
    known.closed("ann", 150)
    assert known.given_up("ann", 151)
    assert not known.given_up("bob", 151)
    assert not known.given_up("ann", 211)


def test_twice_in_more_than_a_minute_is_forgiven() -> None:
    known = Laggards()
    for moment in (100, 161, 222):
        known.closed("ann", moment)
        assert not known.given_up("ann", moment)


def test_who_goes_on_being_slow_stays_given_up() -> None:
    known = Laggards()
    for moment in (100, 110, 165):
        known.closed("ann", moment)
    assert known.given_up("ann", 200)


def test_it_is_bounded_in_time_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 2."""
    monkeypatch.setattr(laggards, "MOST", 3)
    known = Laggards()
    for moment, client in enumerate("abcde"):
        known.closed(client, moment)
    assert len(known) == 3
    known.closed("f", 100)
    assert len(known) == 1


def test_a_client_is_a_user_at_an_address() -> None:
    assert len({client_key("ann", "192.0.2.1"), client_key("ann", "192.0.2.2"), client_key("bob", "192.0.2.1")}) == 3
    assert "ann" not in client_key("ann", "192.0.2.1"), "it travels between nodes, and who it is is nobody's business"


NAMESPACES = {"kept": {"history_size": 100}, "plain": {}}


class Room:
    """The room `kept:x` of a node, in which the last publication is missed by all who come back."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def come_back(self, user: str, missed: int = 1) -> tuple[Peer, bool]:
        """The client, and whether it was recovered."""
        last = await self.node.gateway.publish("kept:x", "the last one")
        peer = await self.node.connect(user)
        since = {"epoch": last.epoch, "offset": last.offset - missed}
        reply = await peer.ask("subscribe", room="kept:x", since=since)
        return peer, reply["recovered"]


async def stop_reading_until_closed(node: Node, peer: Peer, room: str) -> None:
    peer.stop_reading()
    while peer.connection.closed is None:
        await node.gateway.publish(room, "y" * 900)
        await node.settled()
    assert peer.connection.closed[0] == 3008
    peer.lose(3008)


async def test_after_the_second_time_nothing_is_replayed_and_the_client_is_told() -> None:
    async with Node(outbox_bytes=4000, namespaces=NAMESPACES) as node:
        room = Room(node)
        for _ in range(2):
            ann, recovered = await room.come_back("ann")
            assert recovered
            await stop_reading_until_closed(node, ann, "kept:x")
        ann, recovered = await room.come_back("ann")
        assert not recovered
        assert not ann.data("kept:x")
        _, recovered = await room.come_back("bob")
        assert recovered, "others are not concerned"
        _, recovered = await room.come_back("ann", missed=0)
        assert recovered, "who has missed nothing needs no replay"


async def test_all_nodes_are_told() -> None:
    """The client may come back to any of them."""
    async with Node(outbox_bytes=4000, namespaces=NAMESPACES) as node, Node(namespaces=NAMESPACES) as other:
        told: list[bytes] = []
        hears = node.gateway.control
        node.gateway.control = lambda message: (told.append(message), hears(message))  # type: ignore[method-assign]
        for _ in range(2):
            ann, _ = await Room(node).come_back("ann")
            await stop_reading_until_closed(node, ann, "kept:x")
        await node.settled()
        for message in told:
            other.gateway.control(message)
        _, recovered = await Room(other).come_back("ann")
        assert not recovered


async def test_without_history_there_is_nothing_to_remember() -> None:
    async with Node(outbox_bytes=4000, namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "plain:x")
        await stop_reading_until_closed(node, ann, "plain:x")
        await node.settled()
        assert not len(node.gateway.hub.laggards)
