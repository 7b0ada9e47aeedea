"""Who comes back with a position gets what came after it, each once and in order (R1, R3)."""

import asyncio
from typing import Any

import pytest

from app.broker.base import BrokerUnavailable
from app.gateway.delivery import Delivery
from app.wire.messages import Message
from app.wire.plain import Format
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

HISTORY = {"history_size": 100}


async def publish(node: Node, *numbers: int) -> None:
    for number in numbers:
        await node.gateway.publish("chat:x", number)


async def epoch_of(node: Node) -> str:
    first = await node.connect("first")
    reply = await first.ask("subscribe", room="chat:x")
    return str(reply["epoch"])


def heard(peer: Peer) -> list[int]:
    return [event["offset"] for event in peer.of_type("message")]


async def come_back(peer: Peer, epoch: str, offset: int) -> dict[str, Any]:
    return await peer.ask("subscribe", room="chat:x", since={"epoch": epoch, "offset": offset})


async def test_what_came_after_the_position_follows_the_reply() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        await publish(node, 1, 2, 3, 4, 5)
        ann = await node.connect("ann")
        reply = await come_back(ann, epoch, 2)
        assert (reply["recovered"], reply["offset"]) == (True, 2)
        assert ann.data("chat:x") == [3, 4, 5]
        kinds = [event["type"] for event in ann.events]
        assert kinds.index("ok") < kinds.index("message")
        await publish(node, 6)
        await until(lambda: heard(ann) == [3, 4, 5, 6], "the next one")


async def test_nothing_new_is_recovered_too() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        await publish(node, 1)
        ann = await node.connect("ann")
        reply = await come_back(ann, epoch, 1)
        assert (reply["recovered"], reply["offset"]) == (True, 1)
        assert not heard(ann)


@pytest.mark.parametrize(("epoch", "offset"), [("another", 1), ("", 0), (None, 99), (None, 2**53), (None, 0)])
async def test_what_cannot_be_had_is_told(epoch: str | None, offset: int) -> None:
    """Another epoch, or none; the future; what is not kept any more."""
    async with Node(namespaces={"chat": {"history_size": 2}}) as node:
        own = await epoch_of(node)
        await publish(node, 1, 2, 3, 4)
        ann = await node.connect("ann")
        reply = await come_back(ann, own if epoch is None else epoch, offset)
        assert (reply["recovered"], reply["offset"], reply["epoch"]) == (False, 4, own)
        await publish(node, 5)
        await until(lambda: heard(ann) == [5], "it goes on from there")


async def test_the_future_of_a_room_where_nothing_was_published_is_told() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        ann = await node.connect("ann")
        reply = await come_back(ann, epoch, 1)
        assert (reply["recovered"], reply["offset"], reply["epoch"]) == (False, 0, epoch)
        await publish(node, 1)
        await until(lambda: heard(ann) == [1], "it goes on from there")


@pytest.mark.parametrize("offset", [-1, 2**53 + 1])
async def test_an_offset_that_none_can_be_is_a_bad_request(offset: int) -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        ann = await node.connect("ann")
        assert (await come_back(ann, epoch, offset))["code"] == 107


async def test_a_broker_that_is_away_is_error_100_and_the_next_try_works() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        await publish(node, 1)
        ann = await node.connect("ann")
        real = node.broker.read

        async def read(*_: Any, **__: Any) -> Any:
            raise BrokerUnavailable("the broker refused (WRONGTYPE)")

        node.broker.read = read  # type: ignore[method-assign]
        reply = await come_back(ann, epoch, 0)
        assert (reply["code"], reply["temporary"], reply["reason"]) == (100, True, "the broker refused (WRONGTYPE)")
        assert (await ann.ask("history", room="chat:x"))["code"] == 100
        node.broker.read = real  # type: ignore[method-assign]
        assert (await come_back(ann, epoch, 0))["recovered"] is True


async def test_a_room_without_history_says_so() -> None:
    async with Node() as node:
        ann = await node.connect("ann")
        assert (await come_back(ann, "e", 1))["code"] == 108


async def test_too_much_to_replay_is_not_recovered() -> None:
    """R3: half of the outbox."""
    async with Node(outbox_bytes=2000, namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        for _ in range(20):
            await node.gateway.publish("chat:x", "y" * 90)
        ann = await node.connect("ann")
        assert (await come_back(ann, epoch, 0))["recovered"] is False
        bob = await node.connect("bob")
        assert (await come_back(bob, epoch, 15))["recovered"] is True
        assert heard(bob) == [16, 17, 18, 19, 20]


async def test_who_is_far_behind_takes_nothing_from_who_comes_back_with_it() -> None:
    """They share a read (R1); it would become too long for the one, and ends in the midst of what the other needs."""
    async with Node(outbox_bytes=2000, namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        for _ in range(20):
            await node.gateway.publish("chat:x", "y" * 90)
        behind, near = await node.connect("behind"), await node.connect("near")
        for peer, offset in ((behind, 0), (near, 12)):
            since = {"epoch": epoch, "offset": offset}
            peer.send({"type": "subscribe", "room": "chat:x", "id": 1, "since": since})
        assert (await behind.reply(1))["recovered"] is False
        assert (await near.reply(1))["recovered"] is True
        assert heard(near) == list(range(13, 21))


async def test_many_who_come_back_at_once_share_the_reads_and_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        await publish(node, *range(1, 21))
        reads = 0
        real = node.broker.read

        async def read(*given: Any, **asked: Any) -> Any:
            nonlocal reads
            reads += 1
            page = await real(*given, **asked)
            await asyncio.sleep(0)
            return page

        node.broker.read = read  # type: ignore[method-assign]
        framed = 0
        message = Delivery._message

        def counted(self: Delivery, format: Format, skipped: int) -> Message:
            nonlocal framed
            framed += 1
            return message(self, format, skipped)

        monkeypatch.setattr(Delivery, "_message", counted)
        peers = [await node.connect(f"u{number}") for number in range(50)]
        for number, peer in enumerate(peers):
            peer.send(
                {"type": "subscribe", "room": "chat:x", "id": 1, "since": {"epoch": epoch, "offset": number % 20}}
            )
        await until(lambda: all(20 in heard(peer) for peer in peers), "all are back")
        for number, peer in enumerate(peers):
            assert heard(peer) == list(range(number % 20 + 1, 21))
        assert reads <= 3
        assert framed <= 20 * (1 + reads), "once for who was there all the time, once for each read"


@pytest.mark.parametrize("fast", [True, False])
async def test_what_was_missed_goes_in_few_writes_and_waits_for_a_client_that_does_not_read(fast: bool) -> None:
    """O1: what a transport holds cannot be bounded any more."""
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        for number in range(1, 51):
            await node.gateway.publish("chat:x", f"{number}" + 1000 * "y")
        ann = await node.connect("ann", fast=fast)
        before = len(ann.connection.sent)
        await come_back(ann, epoch, 0)
        writes = len(ann.connection.sent) - before
        assert writes == (1 + 4 if fast else 1 + 50), "the reply, and 16 KiB at a time"
        assert heard(ann) == list(range(1, 51))

        bob = await node.connect("bob", fast=fast)
        bob.stop_reading(after=3)
        bob.send({"type": "subscribe", "room": "chat:x", "id": 1, "since": {"epoch": epoch, "offset": 0}})
        await until(lambda: bob.session.outbox, "the rest waits")
        assert 0 < len(heard(bob)) < 50
        bob.read_again()
        assert heard(bob) == list(range(1, 51))


async def test_what_is_published_while_coming_back_comes_once() -> None:
    async with Node(namespaces={"chat": HISTORY}) as node:
        epoch = await epoch_of(node)
        await publish(node, 1, 2)
        real, gate = node.broker.read, asyncio.Event()

        async def read(*given: Any, **asked: Any) -> Any:
            page = await real(*given, **asked)
            await gate.wait()
            return page

        node.broker.read = read  # type: ignore[method-assign]
        ann = await node.connect("ann")
        ann.send({"type": "subscribe", "room": "chat:x", "id": 1, "since": {"epoch": epoch, "offset": 1}})
        await node.settled()
        await publish(node, 3, 4)
        gate.set()
        assert (await ann.reply(1))["recovered"] is True
        await until(lambda: heard(ann) == [2, 3, 4], "each once")
