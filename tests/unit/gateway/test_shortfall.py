"""Members who missed something are told one by one, and nothing of the room comes before that (invariant 6)."""

import asyncio
from typing import Any

import pytest

from app.gateway.shortfall import FEW_PER_SECOND
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

MANY = 100
HISTORY = {"chat": {"history_size": 10}}


@pytest.fixture
async def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each member is to wait for its turn; nobody waits in fact."""
    waits: list[float] = []

    def call_later(delay: float, call: Any, *given: Any) -> asyncio.Handle:
        waits.append(delay)
        return loop.call_soon(call, *given)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", call_later)
    return waits


async def members(node: Node, count: int) -> list[Peer]:
    return [await node.connect(f"user{n}", "chat:x") for n in range(count)]


def told(peers: list[Peer]) -> int:
    return sum(len(peer.of_type("insufficient")) for peer in peers)


async def lose_history(node: Node) -> None:
    """The room begins anew; returns when that was noticed."""
    node.forget_history("chat:x")
    node.gateway.restored(["chat:x"])
    room = node.gateway.hub.rooms["chat:x"]
    await until(lambda: bool(room.uninformed), "it was noticed")
    await until(lambda: room.held is None, "it goes on")


async def test_each_is_told_at_a_moment_of_its_own(delays: list[float]) -> None:
    async with Node(insufficient_spread=0.3) as node:
        peers = await members(node, MANY)
        delays.clear()
        node.gateway.restored(["chat:x"])
        assert told(peers) == 0
        waits = list(delays)
        assert len(waits) == len(set(waits)) == MANY
        assert max(waits) <= 0.3
        assert sum(wait < 0.15 for wait in waits) < MANY
        await until(lambda: told(peers) == MANY, "all are told")
        assert all(len(peer.of_type("insufficient")) == 1 for peer in peers)


async def test_few_do_not_wait_long(delays: list[float]) -> None:
    async with Node(insufficient_spread=3600) as node:
        peers = await members(node, 4)
        delays.clear()
        node.gateway.restored(["chat:x"])
        assert max(delays) <= 4 / FEW_PER_SECOND
        await until(lambda: told(peers) == 4, "all are told")


async def test_with_history_nothing_comes_before_it_is_told_and_then_all() -> None:
    """The position that is told is that which the next publication follows."""
    async with Node(namespaces=HISTORY, insufficient_spread=3600) as node:
        peers = await members(node, MANY)
        await lose_history(node)
        last = 0
        while told(peers) < 5:
            last = (await node.gateway.publish("chat:x", last)).offset
        await node.gateway.publish("chat:x", "last")
        informed = [peer for peer in peers if peer.of_type("insufficient")]
        assert len(informed) < MANY
        await until(lambda: all("last" in peer.data("chat:x") for peer in informed), "those who were told hear it")
        for peer in peers:
            (told_at, *_), heard = peer.of_type("insufficient") or [{"offset": last + 1}], peer.of_type("message")
            assert [one["offset"] for one in heard] == list(range(told_at["offset"] + 1, last + 2))


async def test_without_history_the_next_publication_does_not_wait() -> None:
    """What is withheld there is lost."""
    async with Node(insufficient_spread=3600) as node:
        peers = await members(node, MANY)
        node.gateway.restored(["chat:x"])
        await node.gateway.publish("chat:x", "next")
        await until(lambda: all(peer.data("chat:x") == ["next"] for peer in peers), "all hear it")
        assert all([event["type"] for event in peer.events[-2:]] == ["insufficient", "message"] for peer in peers)


async def test_who_leaves_or_comes_meanwhile_is_not_told(delays: list[float]) -> None:
    async with Node(namespaces=HISTORY, insufficient_spread=3600) as node:
        (ann, bob) = await members(node, 2)
        bob.session.rooms["chat:x"].uninformed = {ann.session, bob.session}
        await bob.ask("unsubscribe", room="chat:x")
        assert (await bob.ask("subscribe", room="chat:x"))["type"] == "ok"
        room = node.gateway.hub.rooms["chat:x"]
        assert room.uninformed == {ann.session}
        ann.lose()
        assert room.uninformed is None
