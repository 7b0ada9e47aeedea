"""The lost last publication of a quiet room is found (R2)."""

import asyncio
from typing import Any

import pytest

from app.broker.base import BrokerUnavailable, History, Position
from app.gateway import position_check
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

HISTORY = {"chat": {"history_size": 100}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position_check, "UNDER_WAY", 0.01)


class Reads:
    """What a node asks its broker, and when, by the loop's clock."""

    def __init__(self, node: Node) -> None:
        self.rooms: list[str] = []
        self.limits: set[int] = set()
        self.at: list[float] = []
        self.away = False
        self._real = node.broker.read
        node.broker.read = self._read  # type: ignore[method-assign]

    async def _read(self, room: str, history: History, **asked: Any) -> Any:
        if self.away:
            raise BrokerUnavailable("away")
        self.rooms.append(room)
        self.at.append(asyncio.get_running_loop().time())
        self.limits.add(asked["limit"])
        return await self._real(room, history, **asked)


def deafen(node: Node, *offsets: int) -> None:
    """The node does not hear these."""
    real = node.gateway.publication

    def publication(room: str, position: Position, envelope: bytes) -> None:
        if position.offset not in offsets:
            real(room, position, envelope)

    node.gateway.publication = publication  # type: ignore[method-assign]


def heard(peer: Peer) -> list[int]:
    return [event["offset"] for event in peer.of_type("message")]


async def test_a_lost_last_publication_comes_without_another_one() -> None:
    async with Node(namespaces=HISTORY, position_check=0.05) as node:
        ann = await node.connect("ann", "chat:x")
        deafen(node, 2, 3)
        for number in (1, 2, 3):
            await node.gateway.publish("chat:x", number)
        await until(lambda: heard(ann) == [1, 2, 3], "all of them")
        assert node.gateway.counters.repairs["repaired"] == 1
        assert not ann.of_type("insufficient")


async def test_zero_is_never() -> None:
    async with Node(namespaces=HISTORY, position_check=0) as node:
        await node.connect("ann", "chat:x")
        assert "PositionCheck.run" not in " ".join(str(task.get_coro()) for task in asyncio.all_tasks())


async def test_nothing_is_repaired_where_nothing_is_missing() -> None:
    async with Node(namespaces=HISTORY, position_check=0.02) as node:
        ann = await node.connect("ann", "chat:x", "default-room")
        reads = Reads(node)
        for number in range(10):
            await node.gateway.publish("chat:x", number)
            await node.settled()
        await until(lambda: len(reads.rooms) > 3, "it was looked")
        assert set(reads.rooms) == {"chat:x"}
        assert reads.limits == {0}
        assert heard(ann) == list(range(1, 11))
        assert not node.gateway.counters.repairs


async def test_a_broker_that_is_away_is_asked_again_the_next_time() -> None:
    async with Node(namespaces=HISTORY, position_check=0.02) as node:
        ann = await node.connect("ann", "chat:x")
        reads = Reads(node)
        reads.away = True
        deafen(node, 1)
        await node.gateway.publish("chat:x", 1)
        await node.settled()
        reads.away = False
        await until(lambda: heard(ann) == [1], "it comes")


async def test_rooms_are_looked_at_in_batches_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No burst, however many there are."""
    monkeypatch.setattr(position_check, "BATCH", 5)
    async with Node(namespaces=HISTORY, position_check=0.1) as node:
        rooms = [f"chat:{number}" for number in range(20)]
        await node.connect("ann", *rooms)
        reads = Reads(node)
        await until(lambda: len(reads.rooms) >= 60, "some rounds")
        assert sorted(reads.rooms[40:60]) == sorted(rooms)
        assert all(later - earlier > 0.02 for earlier, later in zip(reads.at[20:55], reads.at[25:60], strict=True))


async def test_a_new_epoch_is_told() -> None:
    async with Node(namespaces=HISTORY, position_check=0.02, history_meta_ttl=400) as node:
        ann = await node.connect("ann", "chat:x")
        await node.gateway.publish("chat:x", 1)
        await until(lambda: heard(ann) == [1], "heard")
        room = node.gateway.hub.rooms["chat:x"]
        room.top = Position("over", 1)
        await until(lambda: ann.of_type("insufficient"), "told")
        await node.gateway.publish("chat:x", 2)
        await until(lambda: heard(ann) == [1, 1, 2], "all of the history that there is now")
        assert len(ann.of_type("insufficient")) == 1
