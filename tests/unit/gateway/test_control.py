"""What the server does to sessions wherever they are: rooms, rights, tokens."""

import asyncio
import time
from typing import Any

import pytest

from app.auth.permissions import Claims, Rights
from app.auth.tokens import sign
from app.broker.base import BrokerUnavailable
from app.codes import CommandError
from app.gateway.client import Client
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

SECRET = "a-secret-of-these-tests-that-is-long-enough"


async def ended(peer: Peer) -> int:
    await until(lambda: peer.connection.closed, "the session ends")
    assert peer.connection.closed is not None
    return peer.connection.closed[0]


class TestUnsubscribe:
    async def test_all_sessions_of_the_user_leave_the_room_and_are_told(self) -> None:
        async with Node() as node:
            peers = [await node.connect("ann", "chat:x", "chat:y") for _ in range(2)]
            bob = await node.connect("bob", "chat:x")
            await node.gateway.unsubscribe("ann", "chat:x")
            await until(lambda: all(peer.of_type("unsubscribed") for peer in peers), "both are told")
            told = {"type": "unsubscribed", "room": "chat:x", "code": 3503, "reason": "force disconnect"}
            assert peers[0].of_type("unsubscribed") == [told]
            assert set(peers[0].session.rooms) == {"chat:y"}
            assert "chat:x" in bob.session.rooms
            assert (await peers[0].ask("subscribe", room="chat:x"))["type"] == "ok", "its rights stay"

    async def test_one_session_of_several(self) -> None:
        async with Node() as node:
            one, other = [await node.connect("ann", "chat:x") for _ in range(2)]
            await node.gateway.unsubscribe("ann", "chat:x", session=one.session.id)
            await until(lambda: not one.session.rooms, "it has left")
            assert other.session.rooms

    async def test_who_is_not_in_the_room_hears_nothing(self) -> None:
        async with Node() as node:
            ann = await node.connect("ann")
            await node.gateway.unsubscribe("ann", "chat:x")
            await node.settled()
            assert not ann.of_type("unsubscribed")

    async def test_a_room_that_cannot_be_is_an_error(self) -> None:
        async with Node() as node:
            with pytest.raises(CommandError, match="102"):
                await node.gateway.unsubscribe("ann", "nobody:x")

    async def test_a_subscribe_that_was_under_way_does_not_outlast_it(self) -> None:
        """A hook that looked before the right was taken must not let in afterwards."""
        asked, go_on = asyncio.Event(), asyncio.Event()

        class Hooks:
            async def on_subscribe(self, client: Client, room: str) -> bool:
                asked.set()
                await go_on.wait()
                return True

        async with Node(Hooks()) as node:
            ann = await node.connect("ann")
            ann.send({"type": "subscribe", "id": 1, "room": "chat:x"})
            await asked.wait()
            await node.gateway.unsubscribe("ann", "chat:x")
            await until(lambda: ann.session.changes, "the session heard of it")
            go_on.set()
            reply = await ann.reply(1)
            assert (reply["code"], reply["temporary"]) == (100, True)
            assert not ann.session.rooms
            assert "chat:x" not in node.gateway.hub.rooms or not node.gateway.hub.rooms["chat:x"].members


class TestRefresh:
    async def test_some_rights_change_and_the_others_stay(self) -> None:
        async with Node() as node:
            claims = Claims("ann", None, ("chat:*",), ("chat:x",), "t1", 5.0)
            ann = await node.connect(claims=claims)
            for room in ("chat:x", "chat:y"):
                await ann.ask("subscribe", room=room)
            await node.gateway.refresh("ann", Rights(rooms=("chat:x",)))
            await until(lambda: ann.of_type("unsubscribed"), "a room is left")
            assert [(event["room"], event["code"]) for event in ann.of_type("unsubscribed")] == [("chat:y", 3507)]
            assert ann.session.claims == Claims("ann", None, ("chat:x",), ("chat:x",), "t1", 5.0)
            assert (await ann.ask("subscribe", room="chat:y"))["code"] == 103
            assert (await ann.ask("publish", room="chat:x", data=1))["type"] == "ok"

    async def test_a_token_of_the_same_user_replaces_all(self) -> None:
        async with Node(token_hmac_secret=[SECRET]) as node:
            ann = await node.connect("ann", "chat:x")
            token = sign(node.settings, "ann", "chat:z", "", 60)
            await node.gateway.refresh("ann", token)
            await until(lambda: not ann.session.rooms, "the room is left")
            assert ann.session.claims is not None
            assert (ann.session.claims.rooms, ann.session.claims.publish) == (("chat:z",), ())
            assert ann.session.claims.expires_at is not None

    @pytest.mark.parametrize(("user", "reason"), [("bob", "another user"), (None, "not a signed JWT")])
    async def test_another_users_token_changes_nothing(self, user: str | None, reason: str) -> None:
        """A2"""
        async with Node(token_hmac_secret=[SECRET]) as node:
            token = "nonsense" if user is None else sign(node.settings, user, "*")
            with pytest.raises(CommandError, match=reason):
                await node.gateway.refresh("ann", token)

    async def test_a_token_that_was_revoked_since_another_node_has_looked(self) -> None:
        async with Node() as node:
            ann = await node.connect("ann")
            claims = Claims("ann", None, ("*",), (), "t9", 5.0)
            rights = Rights.of(claims)
            await node.gateway.revoke_token("t9")
            await until(lambda: node.gateway.revocations.refuse(claims), "the node knows it")
            node.gateway.control(node.gateway._control.refresh("ann", None, rights))
            assert await ended(ann) == 3500
            assert ann.session.claims is not None
            assert ann.session.claims.jti is None

    async def test_who_is_being_closed_is_closed_in_time(self) -> None:
        """O3: the flush before `goodbye` has an end, whatever comes meanwhile."""
        async with Node() as node:
            ann = await node.connect("ann")
            ann.stop_reading()
            await node.gateway.send_to_user("ann", "unread")
            await until(lambda: ann.session.outbox, "it is queued")
            await node.gateway.disconnect("ann")
            await until(lambda: ann.session.ended, "it is being closed")
            deadline = ann.session._deadline
            await node.gateway.refresh("ann", Rights(rooms=("chat:x",)))
            await node.gateway.send_to_user("ann", "after that")
            ann.session.identified(Claims("ann"))
            assert ann.session._deadline == deadline < float("inf")

    async def test_rights_that_have_run_out_end_the_session(self) -> None:
        async with Node(expiry_spread=0) as node:
            ann, bob = await node.connect("ann"), await node.connect("bob")
            await node.gateway.expire("ann")
            await node.gateway.refresh("bob", Rights(expires_at=time.time() - 1))
            assert [await ended(ann), await ended(bob)] == [3005, 3005]

    async def test_a_subscribe_under_the_old_rights_does_not_end_after_them(self) -> None:
        async with Node(namespaces={"chat": {"history_size": 5}}) as node:
            ann = await node.connect("ann")
            go_on = asyncio.Event()
            real = node.broker.read

            async def read(*given: Any, **asked: Any) -> Any:
                await go_on.wait()
                return await real(*given, **asked)

            node.broker.read = read  # type: ignore[method-assign]
            ann.send({"type": "subscribe", "id": 1, "room": "chat:x"})
            await node.gateway.refresh("ann", Rights(rooms=()))
            await until(lambda: ann.session.changes, "the session heard of it")
            go_on.set()
            assert (await ann.reply(1))["code"] == 100
            assert not ann.session.rooms
            await until(lambda: not node.gateway.hub.rooms, "nothing is kept of the attempt")


class TestRevoke:
    async def test_the_sessions_of_a_revoked_token_end_and_the_others_stay(self) -> None:
        async with Node() as node:
            one = await node.connect(claims=Claims("ann", jti="t1"))
            other = await node.connect(claims=Claims("ann", jti="t2"))
            await node.gateway.revoke_token("t1")
            assert await ended(one) == 3500
            assert one.connection.closed == (3500, "the token was revoked")
            assert other.connection.closed is None

    async def test_all_that_a_user_had_until_now(self) -> None:
        async with Node() as node:
            old = await node.connect(claims=Claims("ann", issued_at=time.time() - 10))
            silent = await node.connect(claims=Claims("ann"))
            bob = await node.connect("bob")
            await node.gateway.revoke_user("ann")
            assert [await ended(old), await ended(silent)] == [3500, 3500]
            later = await node.connect(claims=Claims("ann", issued_at=time.time()))
            assert bob.connection.closed is later.connection.closed is None

    @pytest.mark.parametrize("hooks", [None, object()])
    async def test_a_revoked_token_is_refused_on_the_way_in(self, hooks: object) -> None:
        """By the first message, at once or after what has to be waited for, and at a refresh."""
        async with Node(hooks, token_hmac_secret=[SECRET], max_user_connections=2 if hooks else 0) as node:
            assert node.gateway.admits_at_once is (hooks is None)
            before = await node.connect(claims=Claims("ann", issued_at=10.0**10))
            token = sign(node.settings, "ann", "*")
            await node.gateway.revoke_user("ann", issued_before=time.time() + 100)
            await until(lambda: len(node.gateway.revocations), "it is known")
            ann = node.open()
            ann.send({"type": "auth", "id": 1, "token": token})
            assert await ended(ann) == 3500
            before.send({"type": "auth", "id": 1, "token": token})
            assert await ended(before) == 3500
            assert not [*ann.of_type("ok"), *before.of_type("ok")], "not let in first and ended by the next look"
            bob = node.open()
            assert (await bob.ask("auth", token=sign(node.settings, "bob", "*")))["type"] == "ok"

    async def test_what_is_revoked_while_on_connect_runs_is_refused(self) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()
        calls: list[str] = []

        class Hooks:
            async def on_connect(self, client: Client) -> None:
                asked.set()
                await go_on.wait()

            async def on_disconnect(self, client: Client, code: int) -> None:
                calls.append(client.user)

        async with Node(Hooks(), token_hmac_secret=[SECRET]) as node:
            ann = node.open()
            ann.send({"type": "auth", "id": 1, "token": sign(node.settings, "ann", "*")})
            await asked.wait()
            await node.gateway.revoke_user("ann", issued_before=time.time() + 100)
            await until(lambda: len(node.gateway.revocations), "it is known")
            go_on.set()
            assert await ended(ann) == 3500
            assert not ann.of_type("ok")
            ann.lose()
            await until(lambda: calls == ["ann"], "the hook hears of its end (H3)")

    async def test_a_node_admits_nobody_before_it_has_read_the_list(self) -> None:
        """N2, and again after each loss: what was told meanwhile was not heard."""
        async with Node() as node:
            assert node.gateway.unready() is None
            ann = await node.connect(claims=Claims("ann", jti="t1"))
            node.gateway.lost()
            assert node.gateway.unready() == "broker_unreachable"
            await node.gateway.revocations.revoke_token("t1", 10.0**11)  # by another node, not heard
            node.gateway.restored([])
            assert await ended(ann) == 3500
            await until(lambda: node.gateway.unready() is None, "it has read the list")

    async def test_a_ticket_counts_as_issued_when_it_was(self) -> None:
        async with Node() as node:
            ticket = await node.gateway.tickets.issue(Claims("ann", issued_at=time.time()))
            await node.gateway.revoke_user("ann")
            await until(lambda: len(node.gateway.revocations), "it is known")
            claims = await node.gateway.tickets.redeem(ticket)
            assert claims is not None
            assert node.gateway.revocations.refuse(claims)

    async def test_a_loss_while_the_list_is_read_makes_it_read_again(self) -> None:
        async with Node() as node:
            reads, go_on = 0, asyncio.Event()
            real = node.broker.revoked

            async def revoked() -> dict[bytes, float]:
                nonlocal reads
                reads += 1
                found = await real()
                await go_on.wait()
                return found

            node.broker.revoked = revoked  # type: ignore[method-assign]
            node.gateway.lost()
            await until(lambda: reads == 1, "it reads")
            node.gateway.lost()
            await node.gateway.revocations.revoke_token("t1", 10.0**11)
            go_on.set()
            await until(lambda: node.gateway.unready() is None, "it has read the list")
            assert reads == 2
            assert node.gateway.revocations.refuse(Claims("ann", jti="t1"))

    async def test_a_list_that_cannot_be_read_is_tried_again_later(self) -> None:
        async with Node() as node:
            real, tries = node.broker.revoked, 0

            async def revoked() -> dict[bytes, float]:
                nonlocal tries
                tries += 1
                if tries == 1:
                    raise BrokerUnavailable("away")
                return await real()

            node.broker.revoked = revoked  # type: ignore[method-assign]
            node.gateway.lost()
            await until(lambda: tries == 1, "it has failed")
            assert node.gateway.unready() == "broker_unreachable"
            await until(lambda: node.gateway.unready() is None, "it has read the list")
