"""Who is in a room, as members, the application and the broker see it (A1)."""

import asyncio
from typing import Any

import pytest

from app.broker.base import BrokerUnavailable
from app.codes import CommandError
from app.gateway import presence
from tests.support.brokers import until_answered
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

PRESENCE = {"chat": {"presence": True}}
TOLD = {"chat": {"presence": True, "join_leave": True}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "NEWS_EVERY", 0.02)


def changes(peer: Peer) -> list[dict[str, Any]]:
    return [{key: event[key] for key in event if key in ("joined", "left")} for event in peer.of_type("presence")]


async def counts(node: Node, room: str = "chat:x") -> tuple[int, int]:
    present = await node.gateway.presence(room)
    return present.sessions, present.users


class TestAsking:
    async def test_a_member_sees_all_members_itself_included(self) -> None:
        async with Node(namespaces=PRESENCE) as node:
            ann = await node.connect("ann", "chat:x")
            others = [await node.connect(user, "chat:x") for user in ("ann", "bob")]
            reply = await ann.ask("presence", room="chat:x")
            assert (reply["type"], reply["room"], reply["sessions"], reply["users"]) == ("ok", "chat:x", 3, 2)
            expected = {
                (peer.session.id, user) for peer, user in zip([ann, *others], ("ann", "ann", "bob"), strict=True)
            }
            assert {(member["session"], member["user"]) for member in reply["members"]} == expected

    async def test_what_was_commanded_before_is_seen(self) -> None:
        """Also where the broker is slow and other changes are on their way to it."""
        async with Node(namespaces=PRESENCE) as node:
            attend, answers = node.broker.attend, asyncio.Event()

            async def when_told(*given: Any, **more: Any) -> Any:
                await answers.wait()
                await asyncio.sleep(0.01)  # the way to the broker
                return await attend(*given, **more)

            node.broker.attend = when_told  # type: ignore[method-assign]
            await node.connect("first", "chat:x")
            ann = await node.connect("ann")
            ann.send({"type": "subscribe", "room": "chat:x"})
            ann.send({"type": "presence", "room": "chat:x", "id": 1})
            answers.set()
            assert (await ann.reply(1))["sessions"] == 2

    async def test_who_leaves_or_is_lost_is_gone(self) -> None:
        async with Node(namespaces=PRESENCE) as node:
            ann, bob, eve = [await node.connect(user, "chat:x") for user in ("ann", "bob", "eve")]
            await bob.ask("unsubscribe", room="chat:x")
            assert await counts(node) == (2, 2)
            eve.lose()
            assert await counts(node) == (1, 1)
            ann.lose()
            assert await counts(node) == (0, 0)
            await until(lambda: not node.gateway._presence._rooms, "nothing is kept of an empty room")

    async def test_a_node_that_ends_takes_its_members_with_it(self) -> None:
        """Nobody has to wait until they expire."""
        async with Node(namespaces=PRESENCE) as node:
            for user in ("ann", "bob"):
                await node.connect(user, "chat:x", "chat:y")
            assert await counts(node) == (2, 2)
            attend = node.broker.attend

            async def slowly(*given: Any, **more: Any) -> Any:
                await asyncio.sleep(0.01)  # the way to the broker
                return await attend(*given, **more)

            node.broker.attend = slowly  # type: ignore[method-assign]
        assert node.broker._attendances == {}

    async def test_the_page_is_limited(self) -> None:
        async with Node(namespaces=PRESENCE, presence_page=3) as node:
            peers = [await node.connect(f"u{n}", "chat:x") for n in range(5)]
            for limit, named in (({}, 3), ({"limit": 2}, 2), ({"limit": 0}, 0), ({"limit": 100}, 3)):
                reply = await peers[0].ask("presence", room="chat:x", **limit)
                assert (reply["sessions"], len(reply["members"])) == (5, named)

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            ({"room": "chat:other"}, 103),
            ({"room": "quiet"}, 108),
            ({"room": "nobody:x"}, 102),
            ({"room": "a b"}, 107),
            ({"room": "chat:x", "limit": -1}, 107),
            ({"room": "chat:x", "limit": "1"}, 107),
        ],
        ids=str,
    )
    async def test_what_cannot_be_asked(self, command: dict[str, Any], code: int) -> None:
        async with Node(namespaces=PRESENCE) as node:
            ann = await node.connect("ann", "chat:x", "quiet")
            assert (await ann.ask("presence", **command))["code"] == code

    async def test_the_application_asks_too(self) -> None:
        async with Node(namespaces=PRESENCE) as node:
            await node.connect("ann", "chat:x")
            assert await counts(node) == (1, 1)
            with pytest.raises(CommandError, match="108"):
                await node.gateway.presence("quiet")


class TestJoinsAndLeaves:
    async def test_all_members_are_told_in_one_message(self) -> None:
        async with Node(namespaces=TOLD, presence_leave_delay=0) as node:
            fast, portable = await node.connect("ann", "chat:x"), await node.connect("bob", "chat:x", fast=False)
            await until(lambda: "bob" in str(changes(fast)) and "bob" in str(changes(portable)), "joined")
            assert sorted(user for change in changes(fast) for user in change["joined"]) == ["ann", "bob"]
            eves = [await node.connect("eve", "chat:x") for _ in range(2)]
            await until(lambda: {"joined": ["eve"]} in changes(fast), "eve joined, once")
            for eve in eves:
                eve.lose()
            await until(lambda: {"left": ["eve"]} in changes(fast), "eve left, once")
            assert changes(fast)[-2:] == changes(portable)[-2:] == [{"joined": ["eve"]}, {"left": ["eve"]}]

    async def test_who_is_back_in_time_makes_no_noise(self) -> None:
        async with Node(namespaces=TOLD, presence_leave_delay=30) as node:
            ann = await node.connect("ann", "chat:x")
            bob = await node.connect("bob", "chat:x")
            await until(lambda: "bob" in str(changes(ann)), "both joined")
            before = len(changes(ann))
            bob.lose()
            assert await counts(node) == (1, 1)
            await node.connect("bob", "chat:x")
            eve = await node.connect("eve", "chat:x")
            eve.lose()
            await node.connect("last", "chat:x")
            await until(lambda: "last" in str(changes(ann)), "what came later was told")
            assert not any("bob" in str(change) for change in changes(ann)[before:])

    async def test_who_does_not_read_is_told_afterwards(self) -> None:
        """O3: after what was published before."""
        async with Node(namespaces=TOLD) as node:
            slow = await node.connect("slow", "chat:x")
            await until(lambda: changes(slow), "joined")
            slow.stop_reading()
            await node.gateway.publish("chat:x", 1)
            await node.settled()
            await node.connect("ann", "chat:x")
            watch = await node.connect("watch", "chat:x")
            await until(lambda: "watch" in str(changes(watch)), "told")
            slow.read_again()
            types = [event["type"] for event in slow.events]
            assert "ann" in str(changes(slow))
            assert types.index("message") < len(types) - 1 - types[::-1].index("presence")

    @pytest.mark.parametrize("history_size", [0, 100])
    async def test_after_a_loss_members_are_asked_to_ask_again(self, history_size: int) -> None:
        """Once, also where history fills the gap in publications without a word."""
        async with Node(namespaces={"chat": TOLD["chat"] | {"history_size": history_size}}) as node:
            peers = [await node.connect("ann", "chat:x", fast=fast) for fast in (True, False)]
            node.gateway.restored(["chat:x"])
            for peer in peers:
                await until(lambda peer=peer: peer.of_type("presence")[-1:], "joined")  # type: ignore[misc]
                assert [event for event in peer.of_type("presence") if "resync" in event] == [
                    {"type": "presence", "room": "chat:x", "resync": True}
                ]
            assert [len(peer.of_type("insufficient")) for peer in peers] == ([0, 0] if history_size else [1, 1])

    async def test_a_jump_in_offsets_may_have_taken_joins_with_it(self) -> None:
        async with Node(namespaces={"chat": TOLD["chat"] | {"history_size": 100}}) as node:
            ann = await node.connect("ann", "chat:x")
            real, node.gateway.publication = node.gateway.publication, lambda *_: None  # type: ignore[method-assign]
            await node.gateway.publish("chat:x", 1)
            await asyncio.sleep(0)
            node.gateway.publication = real  # type: ignore[method-assign]
            await node.gateway.publish("chat:x", 2)
            await until(lambda: ann.data("chat:x") == [1, 2], "repaired")
            assert [event["resync"] for event in ann.of_type("presence") if "resync" in event] == [True]

    async def test_they_are_off_by_default(self) -> None:
        async with Node(namespaces=PRESENCE) as node:
            ann = await node.connect("ann", "chat:x")
            bob = await node.connect("bob", "chat:x")
            bob.lose()
            await counts(node)
            assert changes(ann) == []
            assert node.broker._attendances["chat:x"]._news == {}
            node.gateway.restored(["chat:x"])
            assert changes(ann) == [], "nobody keeps a list by events that there are not"

    async def test_news_of_a_newer_release_are_left_to_others(self) -> None:
        """P6"""
        async with Node(namespaces=TOLD) as node:
            ann = await node.connect("ann", "chat:x")
            for news in (b"", b'2{"joined":["x"]}', b"1no json", b'1{"joined":[1]}', b'1{"left":"\xff"}'):
                node.gateway.presence_changed("chat:x", news)
            node.gateway.presence_changed("chat:unknown", b'1{"joined":["x"]}')
            assert "x" not in str([change.get("joined") for change in changes(ann)])


class TestMetrics:
    async def test_memberships_and_what_was_told_are_counted_by_namespace(self) -> None:
        async with Node(namespaces=PRESENCE | {"hall": {"presence": True}}) as node:
            ann, bob = await node.connect("ann", "chat:x", "hall:y"), await node.connect("bob", "chat:x", "chat:z")
            assert node.gateway.presence_sessions == {"chat": 3, "hall": 1}
            bob.lose()
            assert node.gateway.presence_sessions == {"chat": 1, "hall": 1}
            assert await counts(node) == (1, 1)
            counters = node.gateway.counters
            assert (counters.presence_updates["hall"], counters.presence_errors["hall"]) == (1, 0)
            assert counters.presence_updates["chat"] > 1

            async def away(*_: Any, **__: Any) -> Any:
                raise BrokerUnavailable("away")

            node.broker.attend = away  # type: ignore[method-assign]
            await ann.ask("unsubscribe", room="hall:y")
            await until(lambda: counters.presence_errors["hall"] == 1, "it could not be told")
            assert node.gateway.presence_sessions["hall"] == 0


class TestRefreshing:
    async def test_members_stay_while_the_node_lives(self) -> None:
        async with Node(namespaces=PRESENCE, presence_ttl=0.06) as node:
            await node.connect("ann", "chat:x")
            seen = []
            attend = node.broker.attend

            async def counted(*given: Any, **more: Any) -> Any:
                seen.append(more)
                return await attend(*given, **more)

            node.broker.attend = counted  # type: ignore[method-assign]
            await until(lambda: len(seen) >= 6, "refreshed for twice the time")
            assert await counts(node) == (1, 1)
            assert all(not call["came"] and not call["went"] for call in seen), "a refresh costs the same for any room"

    async def test_what_the_broker_forgot_is_written_again(self) -> None:
        """A1: the node was stopped for longer than the expiry, or Redis was restarted."""
        async with Node(namespaces=PRESENCE) as node:
            for user in ("ann", "bob"):
                await node.connect(user, "chat:x")
            assert await counts(node) == (2, 2)
            node.broker._attendances.clear()
            assert await counts(node) == (0, 0)
            node.gateway.restored(["chat:x"])
            await until(lambda: "chat:x" in node.broker._attendances, "written again")
            assert await counts(node) == (2, 2)

    async def test_what_could_not_be_said_is_made_good(self) -> None:
        async with Node(namespaces=PRESENCE) as node:
            ann, bob = [await node.connect(user, "chat:x") for user in ("ann", "bob")]
            assert await counts(node) == (2, 2)
            attend = node.broker.attend

            async def away(*_: Any, **__: Any) -> Any:
                raise BrokerUnavailable("away")

            node.broker.attend = away  # type: ignore[method-assign]
            ann.lose()
            eve = await node.connect("eve", "chat:x")
            assert await counts(node) == (2, 2)
            node.broker.attend = attend  # type: ignore[method-assign]
            node.gateway.restored([])

            async def right() -> bool:
                present = await node.gateway.presence("chat:x")
                return {member.session for member in present.members} == {bob.session.id, eve.session.id}

            await until_answered(right, "the broker knows how it is")

    async def test_rooms_without_presence_cost_nothing(self) -> None:
        async with Node(namespaces={"loud": {"presence": True}}) as node:
            ann = await node.connect("ann", "chat:x")
            ann.lose()
            assert node.gateway._presence._rooms == {}
            assert node.broker._attendances == {}
        async with Node() as node:
            running = {task.get_name() for task in asyncio.all_tasks()} | {
                getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()
            }
            assert "Presence.run" not in running
