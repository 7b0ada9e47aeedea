"""The paced goodbye of a node (N6): its arithmetic is in test_pace.py, its rate on the wire in the live tests."""

import asyncio
from collections.abc import Callable

from tests.support.in_process import Node, Peer
from tests.support.waiting import until


def goodbyes(peer: Peer) -> int:
    return len(peer.of_type("goodbye"))


def hangs_up(peer: Peer, told: Callable[[Peer], None] = lambda _: None) -> Peer:
    """A client that answers the close, as real ones do."""
    close = peer.connection.close

    def answer(code: int, reason: str) -> None:
        close(code, reason)
        told(peer)
        asyncio.get_running_loop().call_soon(peer.lose, code)

    peer.connection.close = answer  # type: ignore[method-assign]
    return peer


async def test_everybody_is_told_once_each_at_a_moment_of_its_own_in_any_order() -> None:
    told: list[tuple[Peer, float]] = []
    async with Node(drain_rate=0) as node:
        peers = [
            hangs_up(await node.connect(), lambda peer: told.append((peer, node.gateway.now()))) for _ in range(40)
        ]
        began = node.gateway.now()
        await node.gateway.drain(1.2)
        assert len(node.gateway.registry) == 0
    assert [goodbyes(peer) for peer in peers] == [1] * 40
    assert len({at for _, at in told}) > 5
    assert told[-1][1] - began > 0.8, "over three quarters of the time, the last one is for what is unsent (O3)"
    assert [peer for peer, _ in told] != peers


async def test_without_sessions_it_is_instant() -> None:
    async with Node() as node:
        async with asyncio.timeout(0):
            await node.gateway.drain(60)
        assert node.gateway.unready() == "draining"


async def test_few_sessions_do_not_take_the_whole_time() -> None:
    async with Node(drain_rate=1000) as node:
        for _ in range(5):
            hangs_up(await node.connect())
        async with asyncio.timeout(5):
            await node.gateway.drain(60)


async def test_zero_seconds_are_all_at_once() -> None:
    async with Node(drain_rate=0) as node:
        peers = [await node.connect() for _ in range(250)]
        await node.gateway.drain(0)
        assert all(goodbyes(peer) for peer in peers)


async def test_who_comes_in_at_the_last_moment_is_told_too() -> None:
    """Its handshake was under way when the drain began."""
    async with Node(drain_rate=1000) as node:
        first = await node.connect()
        draining = asyncio.create_task(node.gateway.drain(10))
        await until(lambda: goodbyes(first), "the first one is told")
        late = hangs_up(await node.connect())
        first.lose()
        async with asyncio.timeout(5):
            await draining
        assert (goodbyes(first), goodbyes(late)) == (1, 1)


async def test_who_has_left_meanwhile_is_not_told() -> None:
    async with Node(drain_rate=0) as node:
        peers = [await node.connect() for _ in range(3)]
        draining = asyncio.create_task(node.gateway.drain(30))
        await until(lambda: node.gateway.draining, "the drain has begun")
        for peer in peers:
            peer.lose()
        async with asyncio.timeout(5):
            await draining
        assert not any(goodbyes(peer) for peer in peers)


async def test_what_is_queued_goes_before_the_goodbye() -> None:
    """O3."""
    async with Node(drain_rate=1000) as node:
        slow = hangs_up(await node.connect("ann", "chat:x"))
        slow.stop_reading()
        await node.gateway.publish("chat:x", "last words")
        await until(lambda: slow.session.outbox, "it is queued")
        draining = asyncio.create_task(node.gateway.drain(10))
        await until(lambda: slow.session.ended, "its turn has come")
        assert not slow.data("chat:x")
        slow.read_again()
        async with asyncio.timeout(5):
            await draining
        assert [event["type"] for event in slow.events][-2:] == ["message", "goodbye"]
