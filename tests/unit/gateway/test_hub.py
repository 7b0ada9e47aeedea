"""Rooms of one node: who gets what, in which order, and what they are told when something is left out."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from app import codes
from app.broker.base import BrokerUnavailable, History, Page, Position
from app.wire import frames
from app.wire.deflate import deflate
from app.wire.plain import MSGPACK
from app.wire.publication import Publication as Envelope
from app.wire.publication import pack
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

HISTORY = {"history_size": 10}


def offsets(peer: Peer, room: str) -> list[int]:
    return [event["offset"] for event in peer.of_type("message") if event["room"] == room]


def hear(node: Node, room: str, offset: int, data: int, epoch: str = "e", session: str | None = None) -> None:
    """As if the broker had delivered it."""
    envelope = pack(Envelope(Raw(str(data).encode()), "somebody", session))
    node.gateway.publication(room, Position(epoch, offset), envelope)


def place(node: Node, position: Position) -> None:
    """From now on this is what the broker says that a room's newest position is."""

    async def told(name: str, history: History, **asked: Any) -> Page:
        return Page(position, ())

    node.broker.read = told  # type: ignore[method-assign]


class TestSharing:
    async def test_members_of_a_format_share_one_frame(self) -> None:
        """Invariant 3: encoded once, framed once."""
        async with Node() as node:
            peers = [await node.connect(f"u{n}", "chat:x") for n in range(3)]
            await node.gateway.publish("chat:x", {"n": 1})
            await node.settled()
            frames = {id(peer.connection.sent[-1]) for peer in peers}
            assert len(frames) == 1

    async def test_json_and_msgpack_say_the_same(self) -> None:
        async with Node() as node:
            text = await node.connect("text", "chat:x")
            binary = node.open(format=MSGPACK)
            await node.gateway.admit(binary.session, text.session.authenticated())
            room = node.settings.namespace_of("chat:x")
            assert room is not None
            await node.gateway.hub.join(binary.session, "chat:x", room, lambda _, __: None)
            await node.gateway.publish("chat:x", {"a": [1, 2.5, None, "ä"]}, tags={"t": "1"})
            await node.settled()
            assert binary.of_type("message") == text.of_type("message")

    async def test_a_connection_without_raw_writes_gets_the_same(self) -> None:
        """Invariant 10."""
        async with Node() as node:
            fast, portable = await node.connect("a", "chat:x"), await node.connect("b", "chat:x", fast=False)
            await node.gateway.publish("chat:x", 1)
            await node.settled()
            assert portable.of_type("message") == fast.of_type("message")


LONG = "a publication that is worth compressing " * 50


class TestCompression:
    """Invariant 3, H7: compressed once, written to all who agreed on permessage-deflate."""

    async def test_a_mixed_room_shares_one_form_per_format_and_compression(self) -> None:
        async with Node() as node:
            plain = [await node.connect(f"p{n}", "chat:x") for n in range(2)]
            packed = [await node.connect(f"c{n}", "chat:x", compressed=True) for n in range(3)]
            portable = await node.connect("portable", "chat:x", fast=False)
            await node.gateway.publish("chat:x", LONG)
            await node.settled()
            peers = [*plain, *packed, portable]
            assert [peer.data("chat:x") for peer in peers] == [[LONG]] * 6
            forms = [peer.connection.sent[-1] for peer in peers]
            assert forms[0] is forms[1] is forms[5]
            assert forms[2] is forms[3] is forms[4]
            assert len(forms[2]) < len(forms[0]) // 10

    async def test_it_is_done_once_whoever_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[bytes] = []
        monkeypatch.setattr(frames, "deflate", lambda payload: done.append(payload) or deflate(payload))
        async with Node() as node:
            for n in range(2):
                await node.connect(f"p{n}", "chat:x")
            await node.gateway.publish("chat:x", LONG)
            await node.settled()
            assert len(done) == 0
            slow = await node.connect("slow", "chat:x", compressed=True)
            slow.stop_reading()
            for n in range(5):
                await node.connect(f"c{n}", "chat:x", compressed=True)
            await node.gateway.publish("chat:x", LONG)
            await node.settled()
            slow.read_again()
            assert slow.data("chat:x") == [LONG]
            assert slow.connection.sent[-1][0] & frames.RSV1
            assert len(done) == 1

    @pytest.mark.parametrize(("threshold", "packed"), [(0, False), (1024, True), (4096, False)])
    async def test_only_from_the_threshold_on(self, threshold: int, packed: bool) -> None:
        async with Node(compression_min_bytes=threshold) as node:
            plain, ready = await node.connect("p", "chat:x"), await node.connect("c", "chat:x", compressed=True)
            await node.gateway.publish("chat:x", LONG)
            await node.settled()
            assert (ready.connection.sent[-1] is not plain.connection.sent[-1]) is packed

    async def test_frames_of_a_window_are_joined_once_for_each_form(self) -> None:
        """O4."""
        async with Node(namespaces={"chat": {"coalesce_ms": 5}}) as node:
            plain = [await node.connect(f"p{n}", "chat:x") for n in range(2)]
            packed = [await node.connect(f"c{n}", "chat:x", compressed=True) for n in range(2)]
            for data in (LONG, "short", LONG + "!"):
                await node.gateway.publish("chat:x", data)
            await until(lambda: len(packed[0].data("chat:x")) == 3, "the window is over")
            assert packed[0].data("chat:x") == plain[0].data("chat:x") == [LONG, "short", LONG + "!"]
            for pair in (plain, packed):
                assert pair[0].connection.sent[-1] is pair[1].connection.sent[-1]

    async def test_nothing_but_publications_is_compressed(self) -> None:
        """Replies may carry tokens, and what a client says beside them: its length would tell of both."""

        class Hooks:
            @staticmethod
            async def on_rpc(client: object, method: str, data: object) -> object:
                return data

        async with Node(Hooks, compression_min_bytes=1) as node:
            ann = await node.connect("ann", "chat:x", compressed=True)
            await ann.ask("rpc", method="echo", data=LONG)
            await node.gateway.send_to_user("ann", LONG)
            await until(lambda: ann.data("#ann"), "the message to the user")
            ann.session.end(codes.SHUTDOWN)
            assert not any(data[0] & frames.RSV1 for data in ann.connection.sent)


class TestEcho:
    @pytest.mark.parametrize("options", [{}, HISTORY])
    async def test_with_echo_a_publisher_hears_itself(self, options: dict[str, Any]) -> None:
        async with Node(namespaces={"chat": {"echo": True, **options}}) as node:
            ann = await node.connect("ann", "chat:x")
            await ann.ask("publish", room="chat:x", data=1)
            await until(lambda: ann.data("chat:x") == [1], "the echo")

    async def test_without_echo_the_next_message_tells_what_was_left_out(self) -> None:
        """O2, in a room without history."""
        async with Node() as node:
            ann, bob = await node.connect("ann", "chat:x"), await node.connect("bob", "chat:x")
            for _ in range(2):
                await ann.ask("publish", room="chat:x", data="own")
            await bob.ask("publish", room="chat:x", data="other")
            await until(lambda: ann.data("chat:x"), "bob's publication")
            assert [(event["data"], event.get("skipped")) for event in ann.of_type("message")] == [("other", 2)]
            await bob.ask("publish", room="chat:x", data="more")
            await until(lambda: len(ann.data("chat:x")) == 2, "bob's second")
            assert "skipped" not in ann.of_type("message")[-1]

    async def test_with_history_a_publisher_hears_its_own_position(self) -> None:
        """O2."""
        async with Node(namespaces={"chat": HISTORY}) as node:
            ann, bob = await node.connect("ann", "chat:x"), await node.connect("bob", "chat:x")
            await ann.ask("publish", room="chat:x", data=1)
            await until(lambda: ann.of_type("message"), "the position")
            assert ann.of_type("message") == [{"type": "message", "room": "chat:x", "offset": 1}]
            await until(lambda: bob.data("chat:x") == [1], "bob hears it")

    async def test_another_device_of_the_publisher_hears_it(self) -> None:
        async with Node() as node:
            phone, laptop = await node.connect("ann", "chat:x"), await node.connect("ann", "chat:x")
            await phone.ask("publish", room="chat:x", data=1)
            await until(lambda: laptop.data("chat:x") == [1], "the other device")
            assert not phone.data("chat:x")


class TestPositions:
    async def test_a_repetition_is_dropped_and_a_jump_is_told(self) -> None:
        """Invariant 1: never a silent gap."""
        async with Node(namespaces={"chat": HISTORY}) as node:
            ann = await node.connect("ann", "chat:x")
            room = node.gateway.hub.rooms["chat:x"]
            assert room.top is not None
            epoch = room.top.epoch
            for offset in (1, 2, 2, 1, 3):
                hear(node, "chat:x", offset, offset, epoch)
            assert offsets(ann, "chat:x") == [1, 2, 3]
            hear(node, "chat:x", 5, 5, epoch)
            await until(lambda: ann.data("chat:x")[-1] == 5, "history does not explain it")
            assert [event["type"] for event in ann.events[-2:]] == ["insufficient", "message"]
            told = ann.of_type("insufficient")[-1]
            assert (told["epoch"], told["offset"]) == (epoch, 4), "where what follows begins"

    async def test_a_new_epoch_is_told(self) -> None:
        async with Node(namespaces={"chat": HISTORY}) as node:
            ann = await node.connect("ann", "chat:x")
            hear(node, "chat:x", 1, 1, "another epoch")
            await until(lambda: ann.data("chat:x") == [1], "the new epoch")
            assert [event["type"] for event in ann.events[-2:]] == ["insufficient", "message"]

    async def test_after_a_loss_of_the_broker_members_are_told_once(self) -> None:
        """P1."""
        async with Node() as node:
            ann = await node.connect("ann", "chat:x")
            node.gateway.restored(["chat:x", "chat:unknown"])
            assert ann.of_type("insufficient") == [{"type": "insufficient", "room": "chat:x"}]


class SlowBroker:
    """Wraps a node's broker: confirmations, positions and farewells wait until the test lets them go."""

    def __init__(self, node: Node) -> None:
        self._broker = node.broker
        self.gates = {name: asyncio.Event() for name in ("subscribe", "read", "unsubscribe")}
        self.asked: list[tuple[str, str]] = []
        self.fails = False
        for name in self.gates:
            setattr(node.broker, name, self._held(name, getattr(node.broker, name)))

    def _held(self, name: str, real: Any) -> Any:
        async def held(room: str, *rest: Any, **asked: Any) -> Any:
            self.asked.append((name, room))
            result = await real(room, *rest, **asked)  # read first: the answer is old when it arrives
            await self.gates[name].wait()
            if self.fails:
                raise BrokerUnavailable("the broker is away")
            return result

        return held

    def let_go(self, *names: str) -> None:
        for name in names:
            self.gates[name].set()


class TestJoining:
    """R1: what is published while somebody joins comes exactly once, after the reply."""

    async def test_publications_between_confirmation_and_position(self) -> None:
        async with Node(namespaces={"chat": HISTORY}) as node:
            slow = SlowBroker(node)
            ann = await node.connect("ann")
            ann.send({"type": "subscribe", "room": "chat:x", "id": 1})
            slow.let_go("subscribe")
            await until(lambda: ("read", "chat:x") in slow.asked, "the position is read")
            await node.gateway.publish("chat:x", 1)
            await node.gateway.publish("chat:x", 2)
            slow.let_go("read")
            reply = await ann.reply(1)
            await node.gateway.publish("chat:x", 3)
            await until(lambda: 3 in ann.data("chat:x"), "the last one")
            assert offsets(ann, "chat:x") == list(range(reply["offset"] + 1, 4))
            kinds = [event["type"] for event in ann.events]
            assert kinds.index("ok") < kinds.index("message")

    async def test_a_position_ahead_of_what_the_node_has_heard(self) -> None:
        """The same publications must not come again when the node hears them late."""
        async with Node(namespaces={"chat": HISTORY}) as node:
            first = await node.connect("first", "chat:x")
            room = node.gateway.hub.rooms["chat:x"]
            assert room.top is not None
            epoch = room.top.epoch
            place(node, Position(epoch, 2))
            late = await node.connect("late", "chat:x")
            for offset in (1, 2, 3, 4):
                hear(node, "chat:x", offset, offset, epoch)
            assert offsets(first, "chat:x") == [1, 2, 3, 4]
            assert offsets(late, "chat:x") == [3, 4]
            assert not room.late

    @pytest.mark.parametrize("change", ["another epoch", "an outage"])
    async def test_who_is_ahead_of_a_history_that_ends_hears_the_next_one(self, change: str) -> None:
        """Invariant 1: no silent gap."""
        async with Node(namespaces={"chat": HISTORY}) as node:
            first = await node.connect("first", "chat:x")
            top = node.gateway.hub.rooms["chat:x"].top
            assert top is not None
            place(node, Position(top.epoch, 100))
            late = await node.connect("late", "chat:x")
            if change == "an outage":
                node.gateway.restored(["chat:x"])
            for offset in (1, 2, 3):
                hear(node, "chat:x", offset, offset, "another")
            await until(lambda: offsets(late, "chat:x") == offsets(first, "chat:x") == [1, 2, 3], "the next history")
            assert late.of_type("insufficient")

    async def test_what_has_no_offset_is_for_those_too_who_are_ahead(self) -> None:
        """And for those who do not read while somebody else is ahead."""
        async with Node(namespaces={"chat": HISTORY}) as node:
            slow = await node.connect("slow", "chat:x")
            top = node.gateway.hub.rooms["chat:x"].top
            assert top is not None
            place(node, Position(top.epoch, 2))
            late = await node.connect("late", "chat:x")
            slow.stop_reading()
            hear(node, "chat:x", 0, 5, "")
            slow.read_again()
            assert (slow.data("chat:x"), late.data("chat:x")) == ([5], [5])

    async def test_a_history_that_ends_while_somebody_joins_is_told(self) -> None:
        async with Node(namespaces={"chat": HISTORY}) as node:

            async def ended(name: str, history: History, **asked: Any) -> Page:
                hear(node, "chat:x", 1, 1, "another")
                return Page(Position("former", 100), ())

            node.broker.read = ended  # type: ignore[method-assign]
            ann = await node.connect("ann", "chat:x")
            assert [event["type"] for event in ann.events][-2:] == ["ok", "insufficient"]

    async def test_who_is_closed_by_the_reply_is_no_member(self) -> None:
        async with Node(outbox_bytes=1000) as node:
            ann = await node.connect("ann", "chat:x")
            ann.stop_reading()
            await node.gateway.publish("chat:x", "y" * 850)
            await node.settled()
            ann.send({"type": "subscribe", "room": "chat:" + "z" * 150, "id": "x" * 60})
            await until(lambda: ann.session.ended, "the outbox is full")
            await node.settled()
            assert not any(ann.session in room.members for room in node.gateway.hub.rooms.values())

    async def test_a_broker_that_fails_leaves_no_room_behind_and_the_next_try_works(self) -> None:
        async with Node() as node:
            slow = SlowBroker(node)
            slow.let_go("subscribe", "unsubscribe")
            slow.fails = True
            ann = await node.connect("ann")
            reply = await ann.ask("subscribe", room="chat:x")
            assert (reply["code"], reply["temporary"]) == (100, True)
            slow.fails = False
            assert (await ann.ask("subscribe", room="chat:x"))["type"] == "ok"
            await ann.ask("unsubscribe", room="chat:x")
            await until(lambda: not node.gateway.hub.rooms, "the room goes")

    async def test_joining_while_the_node_leaves_waits_for_the_leaving(self) -> None:
        async with Node() as node:
            slow = SlowBroker(node)
            slow.let_go("subscribe")
            ann = await node.connect("ann", "chat:x")
            await ann.ask("unsubscribe", room="chat:x")
            await until(lambda: ("unsubscribe", "chat:x") in slow.asked, "the node leaves")
            ann.send({"type": "subscribe", "room": "chat:x", "id": 9})
            assert slow.asked.count(("subscribe", "chat:x")) == 1
            slow.let_go("unsubscribe")
            assert (await ann.reply(9))["type"] == "ok"
            assert slow.asked.count(("subscribe", "chat:x")) == 2
            await node.gateway.publish("chat:x", "heard")
            await until(lambda: ann.data("chat:x") == ["heard"], "the room is heard again")

    async def test_the_room_stays_subscribed_for_a_while(self) -> None:
        async with Node(unsubscribe_delay=60) as node:
            slow = SlowBroker(node)
            slow.let_go("subscribe", "unsubscribe")
            ann = await node.connect("ann", "chat:x")
            await ann.ask("unsubscribe", room="chat:x")
            await ann.ask("subscribe", room="chat:x")
            assert [name for name, _ in slow.asked] == ["subscribe"]

    async def test_many_join_one_room_with_one_subscription(self) -> None:
        async with Node() as node:
            slow = SlowBroker(node)
            peers = [await node.connect(f"u{n}") for n in range(20)]
            for peer in peers:
                peer.send({"type": "subscribe", "room": "chat:x", "id": 1})
            slow.let_go("subscribe")
            for peer in peers:
                assert (await peer.reply(1))["type"] == "ok"
            assert slow.asked == [("subscribe", "chat:x")]


class TestSlowMembers:
    @pytest.mark.parametrize("policy", ["disconnect", "drop_oldest", "conflate"])
    async def test_others_do_not_notice(self, policy: str) -> None:
        async with Node(namespaces={"chat": {"slow_consumer": policy}}, outbox_bytes=2000) as node:
            stalled, other = await node.connect("s", "chat:x"), await node.connect("o", "chat:x")
            stalled.stop_reading(after=2)
            for number in range(50):
                await node.gateway.publish("chat:x", [number, "x" * 100], key="k")
            await until(lambda: len(other.data("chat:x")) == 50, "the other hears all")
            if policy == "disconnect":
                assert stalled.connection.closed == (3008, "slow")
                assert node.gateway.counters.slow_consumers["disconnect"] == 1
                return
            assert stalled.session.outbox is not None
            assert stalled.session.outbox.size <= 2000
            assert node.gateway.counters.skipped[policy] > 30
            stalled.read_again()
            await node.gateway.publish("chat:x", [50, "end"])
            await until(lambda: stalled.data("chat:x")[-1] == [50, "end"], "the end")
            expected = 0
            for event in stalled.of_type("message"):
                expected += event.get("skipped", 0)
                assert event["data"][0] == expected
                expected += 1
            assert not node.gateway.slow

    async def test_a_member_that_pauses_within_a_pass_gets_its_frame_once_and_the_rest_too(self) -> None:
        """O5."""
        async with Node() as node:
            peers = [await node.connect(f"u{n}", "chat:x") for n in range(5)]
            peers[2].stop_reading(after=1)
            await node.gateway.publish("chat:x", 1)
            await node.settled()
            assert [peer.data("chat:x") for peer in peers] == [[1]] * 5
            await node.gateway.publish("chat:x", 2)
            await node.settled()
            assert [peer.data("chat:x") for peer in peers] == [[1, 2], [1, 2], [1], [1, 2], [1, 2]]
            peers[2].read_again()
            assert peers[2].data("chat:x") == [1, 2]

    async def test_leaving_a_room_takes_its_queued_publications_along(self) -> None:
        """O3."""
        async with Node() as node:
            ann = await node.connect("ann", "chat:x", "chat:y")
            ann.stop_reading()
            await node.gateway.publish("chat:x", "unwanted")
            await node.gateway.publish("chat:y", "wanted")
            await node.settled()
            ann.send({"type": "unsubscribe", "room": "chat:x", "id": 5})
            ann.read_again()
            assert (ann.data("chat:x"), ann.data("chat:y")) == ([], ["wanted"])
            assert ann.events[-1]["id"] == 5


class TestWindows:
    async def test_publications_of_a_window_leave_as_one_write(self) -> None:
        """O4."""
        async with Node(namespaces={"chat": {"coalesce_ms": 20}}) as node:
            ann = await node.connect("ann", "chat:x")
            before = len(ann.connection.sent)
            for number in range(5):
                await node.gateway.publish("chat:x", number)
            await until(lambda: ann.data("chat:x") == [0, 1, 2, 3, 4], "the window's end")
            assert len(ann.connection.sent) == before + 1

    async def test_control_messages_of_the_room_end_the_window(self) -> None:
        """O4: nothing after the reply to unsubscribe, nothing old after the reply to subscribe."""
        async with Node(namespaces={"chat": {"coalesce_ms": 1000}}) as node:
            ann, bob = await node.connect("ann", "chat:x"), await node.connect("bob")
            await node.gateway.publish("chat:x", 1)
            await node.settled()
            assert not ann.data("chat:x")
            await bob.ask("subscribe", room="chat:x")
            assert ann.data("chat:x") == [1]
            assert not bob.data("chat:x")
            await node.gateway.publish("chat:x", 2)
            await node.settled()
            await ann.ask("unsubscribe", room="chat:x")
            assert ann.data("chat:x") == [1, 2]
            assert ann.events[-1]["type"] == "ok"

    async def test_a_window_opens_only_for_what_comes_fast(self) -> None:
        """`coalesce_rate`: what comes after a lull leaves at once, what follows it closely waits."""
        async with Node(namespaces={"chat": {"coalesce_ms": 1000, "coalesce_rate": 0.2}}) as node:
            ann = await node.connect("ann", "chat:x")
            await node.gateway.publish("chat:x", 1)
            await node.settled()
            assert ann.data("chat:x") == [1]
            await node.gateway.publish("chat:x", 2)
            await node.gateway.publish("chat:x", 3)
            await node.settled()
            assert ann.data("chat:x") == [1]
            await ann.ask("unsubscribe", room="chat:x")
            assert ann.data("chat:x") == [1, 2, 3]

    async def test_a_room_that_is_slow_enough_waits_for_nobody(self) -> None:
        async with Node(namespaces={"chat": {"coalesce_ms": 1000, "coalesce_rate": 1_000_000}}) as node:
            ann = await node.connect("ann", "chat:x")
            for number in range(3):
                await node.gateway.publish("chat:x", number)
                await node.settled()
            assert ann.data("chat:x") == [0, 1, 2]

    async def test_who_is_closed_within_a_window_leaves_nothing_behind(self) -> None:
        """H4: what it published itself in the same window is owed to nobody."""
        async with Node(outbox_bytes=100, namespaces={"chat": {"coalesce_ms": 1000}}) as node:
            ann = await node.connect("ann", "chat:x")
            ann.stop_reading()
            room = node.gateway.hub.rooms["chat:x"]
            for sender in (None, None, ann.session.id):
                hear(node, "chat:x", 0, 10**60, "", sender)
            node.gateway.hub.flush(room)
            assert ann.session.ended
            assert not room.skipped

    async def test_conflation_keeps_the_newest_of_a_key_and_tells(self) -> None:
        async with Node(namespaces={"chat": {"conflate_ms": 20}}) as node:
            ann = await node.connect("ann", "chat:x")
            for number, key in enumerate(["a", "b", "a", None, "b", "a"]):
                await node.gateway.publish("chat:x", number, key=key)
            await until(lambda: 5 in ann.data("chat:x"), "the window's end")
            got = [(event["data"], event.get("skipped", 0)) for event in ann.of_type("message")]
            assert got == [(3, 3), (4, 0), (5, 0)]

    async def test_a_large_room_is_served_in_chunks_and_in_order(self) -> None:
        """O5: the next publication waits for the last chunk; who leaves in between hears nothing after the reply."""
        async with Node(fanout_chunk=2) as node:
            peers = [await node.connect(f"u{n}", "chat:x") for n in range(7)]
            loop = asyncio.get_running_loop()
            hear_all = asyncio.Event()
            for number in (1, 2):
                hear(node, "chat:x", 0, number, "")
            served = [peer for peer in peers if peer.data("chat:x")]
            assert len(served) == 2
            leaver = next(peer for peer in peers if peer not in served)
            leaver.send({"type": "unsubscribe", "room": "chat:x", "id": 3})
            assert leaver.events[-1]["id"] == 3
            loop.call_soon(hear_all.set)
            await hear_all.wait()
            await until(lambda: all(peer.data("chat:x") == [1, 2] for peer in peers), "all chunks")
            assert leaver.events[-1]["id"] == 3


class TestUsers:
    async def test_a_message_reaches_all_sessions_of_a_user(self) -> None:
        async with Node() as node:
            mine = [await node.connect("ann") for _ in range(3)]
            other = await node.connect("bob")
            await node.gateway.send_to_user("ann", {"mail": 1})
            await node.settled()
            for peer in mine:
                assert peer.of_type("message") == [{"type": "message", "room": "#ann", "data": {"mail": 1}}]
            assert not other.of_type("message")

    async def test_a_user_is_disconnected_wholly_or_by_session(self) -> None:
        async with Node() as node:
            one, two, other = [await node.connect(user) for user in ("ann", "ann", "bob")]
            await node.gateway.disconnect("ann", session=one.session.id, reconnect=True)
            await node.settled()
            assert (one.connection.closed, two.connection.closed) == ((3011, "force reconnect"), None)
            await node.gateway.disconnect("ann")
            await node.settled()
            assert two.connection.closed == (3503, "force disconnect")
            assert other.connection.closed is None

    async def test_what_a_newer_release_says_is_left_alone(self) -> None:
        """P6."""
        async with Node() as node:
            ann = await node.connect("ann", "chat:x")
            node.gateway.control(b"9[]")
            node.gateway.control(b"1nonsense")
            node.gateway.publication("chat:x", Position("", 0), b"9[1]")
            await node.settled()
            assert not ann.of_type("message")
