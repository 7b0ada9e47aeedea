"""The gateway and the clients that authors of hooks test with."""

import asyncio
import time

import pytest

from app.broker.base import NO_POSITION, Position
from app.testing import CommandFailed, ConnectionClosed, Message, TestGateway, UpgradeRefused
from tests.support.waiting import until

HISTORY = {"chat": {"history_size": 10}}


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_a_publication_reaches_the_other_members(msgpack: bool) -> None:
    async with TestGateway() as node:
        ann, bob = await node.connect("ann"), await node.connect("bob", msgpack=msgpack)
        assert await ann.subscribe("chat:x") == NO_POSITION
        await bob.subscribe("chat:x")
        await ann.publish("chat:x", {"n": [1, 2.5, None]})
        got = await bob.receive()
        assert (got.data, got.user, got.session) == ({"n": [1, 2.5, None]}, "ann", ann.session)
        await ann.ping()
        assert ann.messages == []


async def test_what_the_server_publishes_has_a_position_where_the_room_has_history() -> None:
    async with TestGateway(namespaces=HISTORY) as node:
        ann = await node.connect("ann")
        before = await ann.subscribe("chat:x")
        position = await node.gateway.publish("chat:x", "hello", tags={"a": "b"})
        assert position.epoch == before.epoch
        assert await ann.receive() == Message("chat:x", "hello", 1, None, None, {"a": "b"}, 0)


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_what_a_room_keeps_can_be_read_and_recovered(msgpack: bool) -> None:
    async with TestGateway(namespaces=HISTORY) as node:
        ann, bob = await node.connect("ann", msgpack=msgpack), await node.connect("bob")
        before = await ann.subscribe("chat:x")
        for number in range(4):
            await bob.publish("chat:x", {"n": number})
        kept = await ann.history("chat:x", limit=2, since=Position(before.epoch, 1))
        assert kept.top == Position(before.epoch, 4)
        assert [(message.offset, message.data, message.user) for message in kept.messages] == [
            (2, {"n": 1}, "bob"),
            (3, {"n": 2}, "bob"),
        ]
        assert (await ann.history("chat:x", limit=1, reverse=True)).messages[0].offset == 4
        await bob.subscribe("chat:x", since=Position(before.epoch, 3))
        assert (await bob.receive()).offset == 4


async def test_who_is_in_a_room_can_be_asked() -> None:
    async with TestGateway(namespaces={"chat": {"presence": True}}) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        for client in (ann, bob):
            await client.subscribe("chat:x")
        present = await ann.presence("chat:x")
        assert (present.sessions, present.users) == (2, 2)
        assert {(member.user, member.session) for member in present.members} == {
            ("ann", ann.session),
            ("bob", bob.session),
        }
        assert len((await ann.presence("chat:x", limit=1)).members) == 1


async def test_an_error_reply_is_an_exception_that_can_be_read() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann", publish=["chat:*"])
        with pytest.raises(CommandFailed, match="publish: error 103, permission denied") as failed:
            await ann.publish("lobby", 1)
        assert (failed.value.code, failed.value.temporary) == (103, False)


async def test_what_the_server_does_to_a_user_arrives() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann")
        await ann.subscribe("chat:x")
        await node.gateway.unsubscribe("ann", "chat:x")
        assert (await ann.event("unsubscribed"))["room"] == "chat:x"
        await node.gateway.revoke_user("ann", issued_before=time.time() + 1)
        assert (await ann.closed()).code == 3500
        with pytest.raises(ConnectionClosed, match="the token was revoked"):
            await node.connect("ann")


async def test_the_servers_close_is_told_with_its_reason() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann")
        await node.gateway.disconnect("ann")
        closed = await ann.closed()
        assert (closed.code, closed.reason) == (3503, "force disconnect")
        with pytest.raises(ConnectionClosed, match="3503"):
            await ann.ping()


async def test_what_does_not_come_is_a_timeout_that_says_what_came() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann")
        await ann.subscribe("chat:x")
        await node.gateway.publish("chat:x", 1)
        with pytest.raises(TimeoutError, match=r"no insufficient within 0\.05 s; not asked for yet: \['message'\]"):
            await ann.event("insufficient", timeout=0.05)


async def test_a_refused_upgrade_shows_its_status_and_body() -> None:
    async with TestGateway() as node:
        with pytest.raises(UpgradeRefused, match=r'403.*"origin"'):
            await node.open(headers={"Origin": "https://elsewhere.example"})


async def test_a_client_that_stalls_is_given_what_waited_when_it_reads_again() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann")
        await ann.subscribe("chat:x")
        ann.stall()
        await node.gateway.publish("chat:x", 1)
        await until(lambda: node.gateway.slow, "an outbox")
        ann.resume()
        assert (await ann.receive()).data == 1


async def test_commands_sent_faster_than_they_are_handled_are_all_answered_in_order() -> None:
    async with TestGateway() as node:
        ann = await node.connect("ann")
        positions = await asyncio.gather(*(ann.publish(f"chat:{n}", n) for n in range(100)))
        assert positions == [NO_POSITION] * 100


def test_it_needs_no_test_framework() -> None:
    async def main() -> None:
        async with TestGateway() as node:
            await (await node.connect()).ping()

    asyncio.run(main())
