"""What a node does with what another release wrote: it reads what it can, and of the rest nothing is silent (P6)."""

import pytest

from app.broker.base import History
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

NAMESPACES = {"kept": {"history_size": 100}, "plain": {}, "hall": {"presence": True, "join_leave": True}}
KEPT = History(100, 300, 3600)
NEXT = b'2{"data":1}'


def heard(peer: Peer) -> list[int]:
    return [event["offset"] for event in peer.of_type("message")]


async def publish(node: Node, *envelopes: bytes | int, history: History | None = KEPT) -> None:
    """Numbers as this release writes them."""
    for envelope in envelopes:
        written = b"1[%d,null,null,null,null]" % envelope if isinstance(envelope, int) else envelope
        await node.broker.publish("kept:x" if history else "plain:x", written, history=history)


@pytest.mark.parametrize(
    "envelope",
    [b"1[7]", b'1[7,"ann"]', b'1[7,"ann",null,null,null,"a field more",{"and":"another"}]'],
    ids=["fewer fields", "a few fields", "more fields"],
)
async def test_a_neighbour_with_other_fields_is_understood(envelope: bytes) -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "kept:x")
        await publish(node, envelope)
        await until(lambda: ann.data("kept:x") == [7], "the publication")


async def test_a_publication_of_the_next_version_is_told_of_and_what_follows_comes() -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "kept:x")
        await publish(node, 1, NEXT)
        await until(lambda: ann.of_type("insufficient"), "no silent gap")
        await publish(node, 3)
        await until(lambda: heard(ann) == [1, 3], "what can be read")
        assert [event["type"] for event in ann.events[-3:]] == ["message", "insufficient", "message"]
        assert node.gateway.counters.unreadable["publication"] == 1


async def test_one_that_comes_in_the_midst_of_a_repair_is_told_of_too() -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "kept:x")
        node.gateway.restored(["kept:x"])
        await publish(node, 1, NEXT)
        await until(lambda: ann.of_type("insufficient"), "no silent gap")


async def test_a_gap_is_filled_up_to_what_cannot_be_read() -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "kept:x")
        await node.broker.unsubscribe("kept:x")
        await publish(node, 1, 2, NEXT, 4)
        await node.settled()
        await node.broker.subscribe("kept:x")
        node.gateway.restored(["kept:x"])
        await until(lambda: ann.of_type("insufficient"), "no silent gap")
        await publish(node, 5)
        await until(lambda: heard(ann) == [1, 2, 5], "what is before it, and what comes")


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4])
async def test_who_comes_back_before_it_is_not_recovered(offset: int) -> None:
    async with Node(namespaces=NAMESPACES) as node:
        first = await node.connect("first")
        epoch = (await first.ask("subscribe", room="kept:x"))["epoch"]
        await publish(node, 1, 2, NEXT, 4)
        ann = await node.connect("ann")
        reply = await ann.ask("subscribe", room="kept:x", since={"epoch": epoch, "offset": offset})
        assert reply["recovered"] is (offset >= 3)
        assert heard(ann) == ([4] if offset == 3 else [])


async def test_who_comes_back_after_it_is_recovered_though_the_read_is_shared_with_one_before_it() -> None:
    """Such a read begins with what cannot be read, and there it ends (R1)."""
    async with Node(namespaces=NAMESPACES) as node:
        first = await node.connect("first")
        epoch = (await first.ask("subscribe", room="kept:x"))["epoch"]
        await publish(node, NEXT, 2, 3)
        before, after, up_to_date = [await node.connect(name) for name in ("before", "after", "up to date")]
        for peer, offset in ((before, 0), (after, 1), (up_to_date, 3)):
            since = {"epoch": epoch, "offset": offset}
            peer.send({"type": "subscribe", "room": "kept:x", "id": 1, "since": since})
        assert (await before.reply(1))["recovered"] is False
        assert (await after.reply(1))["recovered"] is True
        assert (await up_to_date.reply(1))["recovered"] is True
        assert heard(after) == [2, 3]


async def test_in_a_room_without_history_it_is_counted() -> None:
    """At most once (P1): nobody is told, and the next one comes."""
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "plain:x")
        await publish(node, NEXT, 2, history=None)
        await until(lambda: ann.data("plain:x") == [2], "the one that can be read")
        assert not ann.of_type("insufficient")
        assert node.gateway.counters.unreadable["publication"] == 1


async def test_control_messages_of_the_next_version_or_of_an_unknown_kind_are_left_alone() -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann")
        for message in (b'2["disconnect","ann",null,false]', b'1["dissolve","ann"]', b"", b"\xff"):
            node.gateway.control(message)
        assert not ann.session.ended
        assert node.gateway.counters.unreadable["control"] == 4
        node.gateway.control(b'1["disconnect","ann",null,false,"a field more"]')
        assert ann.session.ended


async def test_news_of_presence_of_the_next_version_are_left_alone() -> None:
    async with Node(namespaces=NAMESPACES) as node:
        ann = await node.connect("ann", "hall:x")

        def others() -> list[list[str]]:
            """Without the news of her own coming, which may be told meanwhile."""
            return [event["joined"] for event in ann.of_type("presence") if event["joined"] != ["ann"]]

        node.gateway.presence_changed("hall:x", b'2{"came":["bob"]}')
        assert others() == []
        assert node.gateway.counters.unreadable["presence"] == 1
        node.gateway.presence_changed("hall:x", b'1{"joined":["bob"],"why":"a field more"}')
        assert others() == [["bob"]]
