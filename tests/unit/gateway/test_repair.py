"""Gaps in what a node heard are filled from history, before anything later (R2, invariant 1)."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from msgspec import Raw

from app.broker.base import BrokerUnavailable, History, Position
from app.broker.memory import MemoryBroker
from app.gateway import repair
from app.wire.publication import Publication, pack
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

HISTORY = {"history_size": 100}
KEPT = History(100, 300, 3600)
ENVELOPE = pack(Publication(Raw(b"0")))


class Gate:
    """Answers of a node's history wait here; they are of the moment in which they were asked for."""

    def __init__(self, node: Node) -> None:
        self._real = node.broker.read
        self._open = asyncio.Event()
        self.asked = 0
        node.broker.read = self._read  # type: ignore[method-assign]

    async def _read(self, *given: Any, **asked: Any) -> Any:
        page = await self._real(*given, **asked)
        self.asked += 1
        await self._open.wait()
        return page

    def open(self) -> None:
        self._open.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "PAUSE", 0.01)


class Deaf:
    """Does not hear some publications, by offset."""

    def __init__(self, node: Node, *offsets: int) -> None:
        self._real = node.gateway.publication
        self.offsets: Collection[int] = offsets
        node.gateway.publication = self.publication  # type: ignore[method-assign]

    def publication(self, room: str, position: Position, envelope: bytes) -> None:
        if position.offset not in self.offsets:
            self._real(room, position, envelope)


async def publish(node: Node, *numbers: int) -> None:
    for number in numbers:
        await node.gateway.publish("chat:x", number)


def heard(peer: Peer) -> list[int]:
    return [event["offset"] for event in peer.of_type("message")]


async def test_what_was_not_heard_is_read_and_comes_in_order() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        Deaf(node, 2, 3, 6)
        await publish(node, *range(1, 8))
        await until(lambda: heard(ann) == [1, 2, 3, 4, 5, 6, 7], "all of them")
        assert not ann.of_type("insufficient")
        assert node.gateway.counters.repairs["repaired"] >= 1
        assert node.gateway.hub.rooms["chat:x"].held is None


async def test_after_an_outage_members_get_what_came_meanwhile() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        deaf = Deaf(node, 1, 2, 3)
        await publish(node, 1, 2, 3)
        deaf.offsets = ()
        node.gateway.restored(["chat:x"])
        await publish(node, 4)
        await until(lambda: heard(ann) == [1, 2, 3, 4], "all of them")
        assert not ann.of_type("insufficient")


async def test_what_history_does_not_have_any_more_is_told() -> None:
    async with Node(namespaces={"chat": {"history_size": 2}}) as node:
        ann = await node.connect("ann", "chat:x")
        deaf = Deaf(node, 1, 2, 3)
        await publish(node, 1, 2, 3)
        await node.settled()
        deaf.offsets = ()
        node.gateway.restored(["chat:x"])
        await until(lambda: ann.of_type("insufficient"), "it is told")
        await publish(node, 4)
        await until(lambda: heard(ann) == [2, 3, 4], "it goes on with what there is")
        assert [told["offset"] for told in ann.of_type("insufficient")] == [1]
        assert node.gateway.counters.repairs["insufficient"] == 1


async def test_members_who_are_told_go_on_with_what_history_has() -> None:
    """What came after the gap is not lost too."""
    async with Node(namespaces={"chat": {"history_size": 2}}) as node:
        ann = await node.connect("ann", "chat:x")
        Deaf(node, 1, 2, 3)
        await publish(node, 1, 2, 3, 4, 5)
        await until(lambda: heard(ann) == [4, 5], "those that were heard")
        assert [event["type"] for event in ann.events[-3:]] == ["insufficient", "message", "message"]


async def test_the_first_of_a_new_epoch_comes_and_the_last_of_the_old_one_does_not() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        await publish(node, 1)
        await until(lambda: heard(ann) == [1], "heard")
        old = node.gateway.hub.rooms["chat:x"].top
        assert old is not None
        real = node.broker.read

        async def read(*given: Any, **asked: Any) -> Any:
            await node.settled()
            return await real(*given, **asked)

        node.broker.read = read  # type: ignore[method-assign]
        node.gateway.publication("chat:x", Position(old.epoch, 9), pack(Publication(data=Raw(b"9"))))
        assert isinstance(node.broker, MemoryBroker)
        node.broker._positions.pop("chat:x")
        await publish(node, 1, 2)
        await until(lambda: node.gateway.hub.rooms["chat:x"].held is None, "it is repaired")
        assert heard(ann) == [1, 1, 2]
        assert len(ann.of_type("insufficient")) == 1


async def test_a_broker_that_is_away_is_asked_until_it_answers() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        real, away = node.broker.read, 3

        async def read(*given: Any, **asked: Any) -> Any:
            nonlocal away
            away -= 1
            if away >= 0:
                raise BrokerUnavailable("away")
            return await real(*given, **asked)

        node.broker.read = read  # type: ignore[method-assign]
        Deaf(node, 1)
        await publish(node, 1, 2)
        await until(lambda: heard(ann) == [1, 2], "all of them")


async def test_a_joiner_in_the_midst_of_a_repair_gets_each_once() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        gate = Gate(node)
        Deaf(node, 1)
        await publish(node, 1, 2)
        bob = await node.connect("bob")
        bob.send({"type": "subscribe", "room": "chat:x", "id": 1})
        await publish(node, 3)
        gate.open()
        reply = await bob.reply(1)
        await publish(node, 4)
        await until(lambda: heard(ann) == [1, 2, 3, 4], "the member")
        assert heard(bob) == list(range(reply["offset"] + 1, 5))


async def test_what_is_missed_while_the_first_one_joins_is_read_again() -> None:
    """An outage after its read was carried out, and before the answer came."""
    async with Node(namespaces={"chat": HISTORY}) as node:
        gate = Gate(node)
        ann = await node.connect("ann")
        ann.send({"type": "subscribe", "room": "chat:x", "id": 1})
        await until(lambda: gate.asked, "the position is read")
        Deaf(node, 1)
        await publish(node, 1)
        node.gateway.restored(["chat:x"])
        gate.open()
        assert (await ann.reply(1))["offset"] == 1


async def test_what_history_lacks_is_no_silent_gap_for_who_is_joining() -> None:
    """Members are told `insufficient`; who is between them and history reads it again."""
    async with Node(namespaces={"chat": {"history_size": 2}}) as node:
        ann = await node.connect("ann", "chat:x")
        gate = Gate(node)
        bob = await node.connect("bob")
        bob.send({"type": "subscribe", "room": "chat:x", "id": 1})
        await until(lambda: gate.asked, "the position is read")
        Deaf(node, 1, 2, 3)
        await publish(node, 1, 2, 3, 4)
        await until(lambda: gate.asked == 2, "the gap is seen")
        gate.open()
        assert (await bob.reply(1))["offset"] == 4
        await until(lambda: ann.of_type("insufficient"), "it is told")
        await publish(node, 5)
        await until(lambda: heard(ann) == [3, 4, 5] and heard(bob) == [5], "both go on")
        assert not bob.of_type("insufficient")


async def test_a_gap_in_the_very_turn_in_which_a_repair_ends_is_repaired_too() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        gate = Gate(node)
        Deaf(node, 1, 3)
        await publish(node, 1, 2)
        await until(lambda: gate.asked, "the repair")
        under_way = next(iter(node.gateway.hub._repairs._tasks.values()))
        gate.open()
        while not under_way.done():  # noqa: ASYNC110 - not one turn later
            await asyncio.sleep(0)
        await node.broker.publish("chat:x", ENVELOPE, history=KEPT)
        position = await node.broker.publish("chat:x", ENVELOPE, history=KEPT)
        node.gateway.publication("chat:x", position, ENVELOPE)
        await until(lambda: heard(ann) == [1, 2, 3, 4], "all of them")


async def test_what_belongs_to_a_history_that_is_over_is_dropped() -> None:
    """A straggler is neither a gap nor a new history."""
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        await publish(node, 1)
        await until(lambda: heard(ann) == [1], "the first one")
        node.gateway.publication("chat:x", Position("former", 70), ENVELOPE)
        await publish(node, 2)
        await until(lambda: heard(ann) == [1, 2], "the next one")
        assert not ann.of_type("insufficient")


async def test_what_comes_while_history_is_read_is_delivered_after_it() -> None:
    """It need not be read too."""
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        gate = Gate(node)
        Deaf(node, 1)
        await publish(node, 1, 2)
        await until(lambda: gate.asked, "the gap is seen")
        await publish(node, 3, 4)
        await node.settled()
        gate.open()
        await until(lambda: heard(ann) == [1, 2, 3, 4], "all of them")
        assert gate.asked == 1


async def test_too_much_that_waits_is_read_from_history_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded in bytes (R2)."""
    monkeypatch.setattr(repair, "BUFFER_BYTES", 3)
    async with Node(namespaces={"chat": HISTORY}) as node:
        ann = await node.connect("ann", "chat:x")
        room = node.gateway.hub.rooms["chat:x"]
        gate = Gate(node)
        Deaf(node, 1)
        await publish(node, 1, 2)
        await until(lambda: gate.asked, "the gap is seen")
        await publish(node, *range(3, 9))
        await node.settled()
        assert len(room.held or ()) <= 3
        gate.open()
        await until(lambda: heard(ann) == list(range(1, 9)), "all of them")
