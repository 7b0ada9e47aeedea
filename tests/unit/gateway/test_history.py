"""Reading a room's history as a client: what a page holds, who may read, and what is answered to what cannot be."""

import math
from typing import Any

import pytest

from app.auth.permissions import Claims
from app.codes import PERMISSION_DENIED, CommandError
from app.wire.plain import FORMATS, Format
from tests.support.in_process import Node, Peer

KEPT = {"namespaces": {"chat": {"history_size": 5}}}


async def fill(node: Node, number: int, room: str = "chat:x", data: Any = None) -> None:
    for offset in range(1, number + 1):
        await node.gateway.publish(room, offset if data is None else data)


async def offsets(peer: Peer, **fields: Any) -> list[int]:
    reply = await peer.ask("history", room="chat:x", **fields)
    assert reply["type"] == "ok", reply
    return [publication["offset"] for publication in reply["publications"]]


async def refusal(peer: Peer, room: str = "chat:x", **fields: Any) -> tuple[int, str]:
    reply = await peer.ask("history", room=room, **fields)
    assert reply["type"] == "error", reply
    return reply["code"], reply["reason"]


class TestPages:
    @pytest.mark.parametrize("format", FORMATS, ids=["json", "msgpack"])
    async def test_a_page_is_what_was_published_and_by_whom(self, format: Format) -> None:
        async with Node(**KEPT) as node:
            bob = await node.connect("bob", format=format)
            await node.gateway.publish("chat:x", {"text": "ü", "n": [1, 2.5, None]}, tags={"from": "server"})
            position = await bob.ask("publish", room="chat:x", data=2**63)
            reply = await bob.ask("history", room="chat:x")
            assert reply | {"id": 0} == {
                "type": "ok",
                "id": 0,
                "room": "chat:x",
                "epoch": position["epoch"],
                "offset": 2,
                "publications": [
                    {"offset": 1, "data": {"text": "ü", "n": [1, 2.5, None]}, "tags": {"from": "server"}},
                    {"offset": 2, "data": 2**63, "from": {"user": "bob", "session": bob.session.id}},
                ],
            }

    async def test_a_room_where_nothing_was_published_has_an_empty_page(self) -> None:
        async with Node(**KEPT) as node:
            reply = await (await node.connect()).ask("history", room="chat:x")
            assert (reply["offset"], reply["publications"]) == (0, [])
            assert reply["epoch"]

    async def test_limit_since_and_reverse(self) -> None:
        async with Node(**KEPT) as node:
            await fill(node, 7)
            peer = await node.connect()
            epoch = (await peer.ask("history", room="chat:x", limit=0))["epoch"]
            since = {"epoch": epoch, "offset": 5}
            assert await offsets(peer) == [3, 4, 5, 6, 7]
            assert await offsets(peer, limit=0) == []
            assert await offsets(peer, limit=2) == [3, 4]
            assert await offsets(peer, reverse=True, limit=2) == [7, 6]
            assert await offsets(peer, since=since) == [6, 7]
            assert await offsets(peer, since=since, limit=1) == [6]
            assert await offsets(peer, since=since, limit=0) == []
            assert await offsets(peer, since=since, reverse=True) == [4, 3]
            assert await offsets(peer, since=since | {"offset": 7}) == []

    async def test_a_page_ends_at_history_page_whatever_was_asked(self) -> None:
        async with Node(**KEPT, history_page=3) as node:
            await fill(node, 5)
            peer = await node.connect()
            for limit in (None, 3, 4, 2**63):
                assert await offsets(peer, limit=limit) == [1, 2, 3]

    async def test_a_page_ends_at_half_of_the_outbox_but_for_its_first(self) -> None:
        async with Node(**KEPT, outbox_bytes=2000) as node:
            await fill(node, 4, data="x" * 400)
            peer = await node.connect()
            assert await offsets(peer) == [1, 2]
            await fill(node, 4, data="x" * 1500)
            assert await offsets(peer) == [4]

    async def test_a_client_can_read_all_of_it_page_by_page(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 50}}, history_page=7) as node:
            await fill(node, 60)
            peer = await node.connect()
            for reverse, expected in (False, list(range(11, 61))), (True, list(range(60, 10, -1))):
                read: list[int] = []
                since: dict[str, Any] | None = None
                for _ in range(math.ceil(50 / 7) + 1):
                    reply = await peer.ask("history", room="chat:x", since=since, reverse=reverse)
                    assert reply["type"] == "ok", reply
                    read += [publication["data"] for publication in reply["publications"]]
                    since = {"epoch": reply["epoch"], "offset": read[-1]}
                assert read == expected
                assert reply["publications"] == []


class TestRefusals:
    async def test_a_position_that_the_history_does_not_reach(self) -> None:
        async with Node(**KEPT) as node:
            await fill(node, 7)
            peer = await node.connect()
            epoch = (await peer.ask("history", room="chat:x"))["epoch"]

            async def since(offset: int, epoch: str = epoch, **fields: Any) -> tuple[int, str]:
                return await refusal(peer, since={"epoch": epoch, "offset": offset}, **fields)

            for fields in ({}, {"limit": 0}, {"reverse": True}):
                assert await since(7, epoch="another", **fields) == (
                    112,
                    "the room's history has begun anew since: another epoch",
                )
                assert await since(8, **fields) == (112, "the position is ahead of the room's history")
            assert await since(1) == (112, "the room's history no longer reaches the position")
            assert (await since(-1))[0] == 107
            assert (await since(2**53 + 1))[0] == 107
            assert await offsets(peer, since={"epoch": epoch, "offset": 2}) == [3, 4, 5, 6, 7]
            assert await offsets(peer, since={"epoch": epoch, "offset": 1}, reverse=True) == []

    async def test_a_history_that_has_ended_reaches_nothing_but_its_end(self) -> None:
        """P5: the epoch outlives the publications."""
        async with Node(namespaces={"chat": {"history_size": 5, "history_ttl": 1e-9}}) as node:
            await fill(node, 3)
            peer = await node.connect()
            epoch = (await peer.ask("history", room="chat:x"))["epoch"]
            assert (await refusal(peer, since={"epoch": epoch, "offset": 2}))[0] == 112
            assert await offsets(peer, since={"epoch": epoch, "offset": 3}) == []

    async def test_a_room_without_history_says_so(self) -> None:
        """P1"""
        async with Node() as node:
            peer = await node.connect()
            assert await refusal(peer) == (108, "this namespace keeps no history")
            assert (await refusal(peer, since={"epoch": "", "offset": 0}))[0] == 108

    @pytest.mark.parametrize(
        "fields",
        [{"limit": -1}, {"limit": "5"}, {"limit": 1.5}, {"since": 5}, {"since": {"offset": 1}}, {"reverse": 1}],
    )
    async def test_what_is_no_question_is_a_bad_request(self, fields: dict[str, Any]) -> None:
        async with Node(**KEPT) as node:
            assert (await refusal(await node.connect(), **fields))[0] == 107

    async def test_what_another_release_wrote_is_no_gap_without_a_word(self) -> None:
        """P6"""
        async with Node(**KEPT) as node:
            peer = await node.connect()
            await fill(node, 1)
            await node.broker.publish(
                "chat:x", b"9[1]", history=node.gateway.hub.history_of(node.settings.namespaces["chat"])
            )
            assert await refusal(peer) == (100, "this node cannot read the publication at offset 2")
            assert await offsets(peer, limit=1) == [1]


class NobodyJoins:
    async def on_subscribe(self, client: Any, room: str) -> bool:
        if client.user != "member":
            raise CommandError(PERMISSION_DENIED, "the hook was asked")
        return True


class TestWhoMayRead:
    async def test_who_may_subscribe_may_read_without_being_in_the_room(self) -> None:
        async with Node(**KEPT) as node:
            await fill(node, 1)
            reader = await node.connect(claims=Claims("ann", None, ("chat:x",), ()))
            assert await offsets(reader) == [1]
            stranger = await node.connect(claims=Claims("eve", None, ("chat:y",), ("*",)))
            assert (await refusal(stranger))[0] == 103
            assert (await refusal(reader, "nobody:x"))[0] == 102
            assert (await refusal(reader, "#ann"))[0] == 103

    @pytest.mark.parametrize("access", ["hook", "token"])
    async def test_where_the_hook_has_a_say_only_members_read(self, access: str) -> None:
        namespaces = {"chat": {"history_size": 5, "subscribe": access}}
        async with Node(NobodyJoins(), namespaces=namespaces) as node:
            await fill(node, 1)
            assert await refusal(await node.connect("eve")) == (103, "subscribe to the room first")
            assert await offsets(await node.connect("member", "chat:x")) == [1]

    async def test_where_the_hook_is_missing_nobody_reads(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 5, "subscribe": "hook"}}) as node:
            assert (await refusal(await node.connect()))[0] == 103
