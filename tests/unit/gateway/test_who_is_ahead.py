"""Who knows more of a room than the node, or comes back beside others: is told nothing needless, and misses nothing."""

import pytest

from app.broker.base import BrokerUnavailable, History, Position
from app.gateway import hub as hub_module
from tests.support.in_process import Node
from tests.support.waiting import until
from tests.unit.gateway.test_repair import ENVELOPE, Deaf, Gate, heard, publish

LARGER = History(100, 300, 3600)


async def first(node: Node) -> Position:
    """A member that is there all the time; answers where the room begins."""
    await node.connect("ann", "chat:x")
    top = node.gateway.hub.rooms["chat:x"].top
    assert top is not None
    return top


class TestLongerHistories:
    """During a rollout that makes histories shorter, another release keeps more than this one reads at once."""

    async def test_who_comes_back_is_not_told_that_a_part_is_all(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 3}}) as node:
            top = await first(node)
            for _ in range(10):
                await node.broker.publish("chat:x", ENVELOPE, history=LARGER)
            await node.settled()
            bob = await node.connect("bob")
            reply = await bob.ask("subscribe", room="chat:x", since={"epoch": top.epoch, "offset": 1})
            assert reply["recovered"] is False

    async def test_a_repair_goes_on_to_the_top(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 3}}) as node:
            ann = await node.connect("ann", "chat:x")
            Deaf(node, *range(1, 11))
            for _ in range(10):
                await node.broker.publish("chat:x", ENVELOPE, history=LARGER)
            node.gateway.restored(["chat:x"])
            await until(lambda: heard(ann) == list(range(1, 11)), "all of them")


class TestLate:
    @pytest.mark.parametrize("spread", [0, 0.3])
    async def test_who_has_missed_nothing_is_not_told_that_others_have(self, spread: float) -> None:
        async with Node(namespaces={"chat": {"history_size": 3}}, insufficient_spread=spread) as node:
            epoch = (await first(node)).epoch
            deaf = Deaf(node, *range(1, 11))
            await publish(node, *range(1, 11))
            await node.settled()
            deaf.offsets = ()
            bob = await node.connect("bob")
            await bob.ask("subscribe", room="chat:x", since={"epoch": epoch, "offset": 8})
            node.gateway.restored(["chat:x"])
            await publish(node, 11, 12)
            await until(lambda: 12 in heard(bob), "the last one")
            assert heard(bob) == [9, 10, 11, 12]
            assert not bob.of_type("insufficient")

    async def test_a_joiner_who_finds_a_new_history_has_not_missed_it(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 3}}) as node:
            await first(node)
            deaf = Deaf(node, *range(1, 11))
            node.forget_history("chat:x")
            await publish(node, *range(1, 11))
            await node.settled()
            deaf.offsets = ()
            bob = await node.connect("bob", "chat:x")
            await publish(node, 11)
            await until(lambda: heard(bob) == [11], "the next one")
            assert not bob.of_type("insufficient")

    async def test_what_is_older_than_the_joiner_is_not_too_much_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub_module, "JOINING_LIMIT", 5)
        async with Node(namespaces={"chat": {"history_size": 100}}) as node:
            await first(node)
            real, under_way = node.gateway.publication, []
            node.gateway.publication = lambda *given: under_way.append(given)  # type: ignore[method-assign]
            await publish(node, *range(1, 21))
            await until(lambda: len(under_way) == 20, "on their way")
            gate = Gate(node)
            bob = await node.connect("bob")
            bob.send({"type": "subscribe", "room": "chat:x", "id": 1})
            await until(lambda: gate.asked, "the position is read")
            for given in under_way[:10]:
                real(*given)
            gate.open()
            await bob.reply(1)
            for given in under_way[10:]:
                real(*given)
            node.gateway.publication = real  # type: ignore[method-assign]
            await publish(node, 21)
            await until(lambda: heard(bob) == [21], "the next one")
            assert not bob.of_type("insufficient")

    async def test_who_ends_in_its_own_replay_leaves_nothing(self) -> None:
        """Invariant 2."""
        async with Node(namespaces={"chat": {"history_size": 100}}, outbox_bytes=4096) as node:
            epoch = (await first(node)).epoch
            Deaf(node, *range(1, 31))
            for _ in range(30):
                await node.gateway.publish("chat:x", "x" * 50)
            await node.settled()
            bob = await node.connect("bob")
            bob.stop_reading()
            await node.gateway.send_to_user("bob", "y" * 2500)
            await until(lambda: bob.session.outbox, "it is queued")
            bob.send({"type": "subscribe", "room": "chat:x", "id": 1, "since": {"epoch": epoch, "offset": 0}})
            await until(lambda: bob.connection.closed, "it was too much")
            assert not node.gateway.hub.rooms["chat:x"].late


@pytest.mark.parametrize(
    "others", [[("same", 10), ("same", 20), ("same", 30), ("same", 40)], [("gone", 0), ("gone", 1), ("gone", 2)]]
)
async def test_who_missed_little_comes_back_beside_those_who_missed_much(others: list[tuple[str, int]]) -> None:
    """Reads are shared (R1), and cut for those."""
    async with Node(namespaces={"chat": {"history_size": 1000}}, outbox_bytes=8192) as node:
        epoch = (await first(node)).epoch
        for _ in range(400):
            await node.gateway.publish("chat:x", "x" * 50)
        await node.settled()
        gate = Gate(node)
        leader = await node.connect("leader")
        leader.send({"type": "subscribe", "room": "chat:x", "id": 1})
        await until(lambda: gate.asked == 1, "a read is under way; the others share the next")
        peers = [await node.connect(f"u{number}") for number in range(len(others) + 1)]
        for peer, (of, offset) in zip(peers, [*others, ("same", 399)], strict=True):
            since = {"epoch": epoch if of == "same" else of, "offset": offset}
            peer.send({"type": "subscribe", "room": "chat:x", "id": 1, "since": since})
        gate.open()
        replies = [await peer.reply(1) for peer in peers]
        assert replies[-1]["recovered"] is True


async def test_rooms_that_cannot_be_read_do_not_hold_up_the_others() -> None:
    """One shard of a cluster refuses, others do not."""
    async with Node(namespaces={"chat": {"history_size": 100}}) as node:
        refused = [f"chat:refused{number}" for number in range(40)]
        ann = await node.connect("ann", "chat:x", *refused)
        real = node.broker.read

        async def read(room: str, *given: object, **asked: object) -> object:
            if room in refused:
                raise BrokerUnavailable("OOM")
            return await real(room, *given, **asked)  # type: ignore[arg-type]

        node.broker.read = read  # type: ignore[method-assign, assignment]
        node.gateway.restored(refused)
        Deaf(node, 1)
        await publish(node, 1, 2)
        await until(lambda: heard(ann) == [1, 2], "the gap is filled")
