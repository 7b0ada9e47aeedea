"""One client's state machine: commands, errors, deadlines, the end."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.permissions import Claims
from app.auth.tokens import sign
from app.codes import FORCE_DISCONNECT, PERMISSION_DENIED, CommandError
from app.gateway.connection import LOST
from app.gateway.session import FLUSH_TIMEOUT, QUEUED_COMMANDS
from app.wire.plain import FORMATS, MSGPACK, Format
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

SECRET = "a-secret-of-the-tests-that-is-long-enough"


def goodbye(peer: Peer) -> int:
    """The code of the last message and of the close frame, which are the same."""
    assert peer.events[-1]["type"] == "goodbye"
    assert peer.connection.closed is not None
    assert peer.connection.closed[0] == peer.events[-1]["code"]
    return int(peer.events[-1]["code"])


class TestEntering:
    async def test_welcome_is_the_first_message(self) -> None:
        """A4."""
        async with Node() as node:
            peer = node.open()
            assert peer.events == [
                {"type": "welcome", "session": peer.session.id, "node": "node-1", "ping_interval": 0.0}
            ]

    @pytest.mark.parametrize("type", ["subscribe", "unsubscribe", "presence", "history"])
    async def test_before_auth_commands_are_refused(self, type: str) -> None:
        async with Node() as node:
            assert (await node.open().ask(type, room="chat:x"))["code"] == 101

    async def test_auth_lets_in_and_tells_how_long(self) -> None:
        async with Node(token_hmac_secret=SECRET) as node:
            peer = node.open(room="chat:path")
            reply = await peer.ask("auth", token=sign(node.settings, "ann", ["chat:*"], [], 100))
            assert (reply["type"], reply["user"]) == ("ok", "ann")
            assert 97 <= reply["expires_in"] <= 100
            await until(lambda: "chat:path" in peer.session.rooms, "the room of the path is subscribed")

    async def test_a_bad_token_ends_the_session_an_expired_one_may_be_replaced(self) -> None:
        async with Node(token_hmac_secret=SECRET, token_leeway=0) as node:
            peer = node.open()
            expired = sign(node.settings, "ann", [], [], -10)
            assert (await peer.ask("auth", token=expired))["code"] == 109
            assert (await peer.ask("auth", token=sign(node.settings, "ann", [], [], 10)))["type"] == "ok"
            stranger = node.open()
            stranger.send({"type": "auth", "token": "nonsense"})
            await until(lambda: stranger.connection.closed, "the stranger is sent away")
            assert goodbye(stranger) == 3500
            assert "nonsense" not in str(stranger.events)

    async def test_without_credentials_it_ends_after_auth_timeout(self) -> None:
        async with Node(auth_timeout=10) as node:
            peer = node.open()
            now = node.gateway.now()
            assert peer.session.on_timer(now + 9.9) is not None
            assert peer.session.on_timer(now + 10.1) is None
            assert goodbye(peer) == 3502

    async def test_a_refresh_belongs_to_the_same_user(self) -> None:
        """A2."""
        async with Node(token_hmac_secret=SECRET) as node:
            peer = await node.connect("ann")
            peer.send({"type": "auth", "token": sign(node.settings, "bob", ["*"], ["*"], 10)})
            await until(lambda: peer.connection.closed, "the session ends")
            assert goodbye(peer) == 3500

    async def test_a_refresh_takes_rooms_away_that_are_not_allowed_any_more(self) -> None:
        """A2."""
        async with Node(token_hmac_secret=SECRET) as node:
            peer = await node.connect("ann", "chat:kept", "chat:lost")
            await peer.ask("auth", token=sign(node.settings, "ann", ["chat:kept"], [], 10))
            assert [event["room"] for event in peer.of_type("unsubscribed")] == ["chat:lost"]
            assert set(peer.session.rooms) == {"chat:kept"}


class TestExpiry:
    async def test_after_exp_commands_are_refused_at_once_and_the_close_follows_never_before(self) -> None:
        """A2."""
        async with Node(expiry_spread=5) as node:
            expires = time.time() + 0.05
            peer = await node.connect(claims=Claims("ann", expires, ("*",), ("*",)))
            now = node.gateway.now()
            await until(lambda: time.time() > expires, "the token runs out")
            assert (await peer.ask("subscribe", room="chat:x"))["code"] == 109
            assert (await peer.ask("publish", room="chat:x", data=1))["code"] == 109
            assert peer.session.on_timer(now) is not None
            assert peer.session.on_timer(now + 0.05 + 5.1) is None
            assert goodbye(peer) == 3005


class TestCommands:
    @pytest.mark.parametrize(
        ("command", "code"),
        [
            ({"type": "subscribe", "room": "nobody:x"}, 102),
            ({"type": "subscribe", "room": "secret"}, 103),
            ({"type": "subscribe", "room": "#ann"}, 103),
            ({"type": "publish", "room": "chat:readonly", "data": 1}, 103),
            ({"type": "rpc", "method": "m"}, 104),
            ({"type": "subscribe", "room": "chat:here"}, 105),
            ({"type": "publish", "room": "chat:x", "data": "x" * 2000}, 106),
            ({"type": "subscribe", "room": "chat:a b"}, 107),
            ({"type": "subscribe", "room": "chat:" + "x" * 300}, 107),
            ({"type": "subscribe", "room": "chat:\x00"}, 107),
            ({"type": "subscribe", "room": ""}, 107),
            ({"type": "subscribe"}, 107),
            ({"type": "subscribe", "room": "chat:x", "extra": 1}, 107),
            ({"type": "subscribe", "room": 5}, 107),
            ({"type": "unknown"}, 107),
            ({"type": "publish", "room": "chat:x", "data": 10**30}, 107),
            ({"type": "publish", "room": "chat:x"}, 107),
            ({"type": "publish", "room": "chat:x", "data": 1, "key": "k" * 65}, 107),
            ({"type": "subscribe", "room": "chat:x", "since": {"epoch": "e", "offset": 1}}, 108),
            ({"type": "subscribe", "room": "chat:x", "since": {"epoch": "e", "offset": -1}}, 107),
            ({"type": "history", "room": "chat:x"}, 108),
            ({"type": "presence", "room": "chat:x"}, 108),
        ],
        ids=str,
    )
    async def test_what_cannot_be_is_answered_with_its_code(self, command: dict[str, Any], code: int) -> None:
        chat = {"chat": {"max_publication_bytes": 1000}}
        async with Node(namespaces=chat) as node:
            claims = Claims("ann", None, ("chat:*",), ("chat:x", "secret"))
            peer = await node.connect("ann", "chat:here", claims=claims)
            peer.send({"id": 7, **command})
            reply = await peer.reply(7)
            assert (reply["type"], reply["code"]) == ("error", code)
            assert peer.connection.closed is None
            assert (await peer.ask("ping"))["type"] == "pong"

    @pytest.mark.parametrize(
        "garbage",
        [b"", b"{", b"[]", b"1", b'"x"', b"nonsense", b"[" * 5000, b"\xff", b"{}", b'{"type":"ping","x":"\\ud800"}'],
    )
    async def test_what_is_no_command_is_a_bad_request(self, garbage: bytes) -> None:
        async with Node() as node:
            peer = await node.connect()
            peer.send(garbage)
            assert peer.events[-1]["code"] == 107
            assert (await peer.ask("ping"))["type"] == "pong"

    async def test_the_id_of_a_bad_command_comes_back_where_it_can_be_read(self) -> None:
        async with Node() as node:
            peer = await node.connect()
            for id in (1, "one", -(2**63)):
                peer.send({"type": "nonsense", "id": id})
                assert peer.events[-1] | {"reason": ""} == {
                    "type": "error", "id": id, "code": 107, "reason": "", "temporary": False,
                }  # fmt: skip
            peer.send({"type": "ping", "id": 2**64})
            assert "id" not in peer.events[-1]

    async def test_two_commands_of_one_id_are_two_commands(self) -> None:
        async with Node() as node:
            peer = await node.connect()
            for _ in range(2):
                peer.send({"type": "ping", "id": 1})
            assert [event.get("id") for event in peer.of_type("pong")] == [1, 1]

    async def test_a_binary_message_on_a_text_session_ends_it(self) -> None:
        async with Node() as node:
            text, binary = await node.connect(), await node.connect(format=MSGPACK)
            text.session.receive(b"\x80", False)
            binary.session.receive(b"{}", True)
            assert (goodbye(text), goodbye(binary)) == (1003, 1003)

    async def test_more_subscriptions_than_allowed(self) -> None:
        async with Node(max_subscriptions=2) as node:
            peer = await node.connect("ann", "chat:1", "chat:2")
            assert (await peer.ask("subscribe", room="chat:3"))["code"] == 106
            await peer.ask("unsubscribe", room="chat:1")
            assert (await peer.ask("subscribe", room="chat:3"))["type"] == "ok"
            assert node.gateway.counters.limit_hits["max_subscriptions"] == 1

    async def test_leaving_twice_is_no_error(self) -> None:
        async with Node() as node:
            peer = await node.connect()
            assert (await peer.ask("unsubscribe", room="chat:x"))["type"] == "ok"

    async def test_too_many_messages_are_refused_and_a_flood_ends_the_session(self) -> None:
        async with Node(message_rate=10, message_burst=5) as node:
            peer = await node.connect()
            for number in range(5):
                peer.send({"type": "ping", "id": number})
            assert len(peer.of_type("pong")) == 5
            peer.send({"type": "ping", "id": 6})
            assert (peer.events[-1]["code"], peer.events[-1]["temporary"]) == (111, True)
            for _ in range(10):
                peer.send({"type": "ping"})
            assert goodbye(peer) == 3013

    async def test_publications_have_a_rate_of_their_own(self) -> None:
        async with Node(namespaces={"chat": {"publish_rate": 1, "publish_burst": 2}}) as node:
            peer = await node.connect()
            codes = [(await peer.ask("publish", room="chat:x", data=1)).get("code") for _ in range(3)]
            assert codes == [None, None, 111]
            assert (await peer.ask("publish", room="elsewhere", data=1))["type"] == "ok"


class TestOrder:
    """H2."""

    async def test_commands_wait_for_the_one_under_way_then_reading_is_paused(self) -> None:
        gate = asyncio.Event()

        class Hooks:
            @staticmethod
            async def on_subscribe(client: Any, room: str) -> None:
                await gate.wait()

        async with Node(hooks=Hooks) as node:
            peer = await node.connect()
            peer.send({"type": "subscribe", "room": "chat:x", "id": "first"})
            for number in range(QUEUED_COMMANDS):
                assert peer.connection.reading
                peer.send({"type": "ping", "id": number})
            assert not peer.connection.reading
            assert not peer.of_type("pong")
            gate.set()
            await peer.reply(QUEUED_COMMANDS - 1)
            ids = [event["id"] for event in peer.events if "id" in event]
            assert ids == ["first", *range(QUEUED_COMMANDS)]
            assert peer.connection.reading

    async def test_a_session_that_is_lost_while_a_command_waits_leaves_nothing_behind(self) -> None:
        gate = asyncio.Event()

        class Hooks:
            @staticmethod
            async def on_subscribe(client: Any, room: str) -> None:
                await gate.wait()

        async with Node(hooks=Hooks) as node:
            peer = await node.connect()
            peer.send({"type": "subscribe", "room": "chat:x", "id": 1})
            peer.lose()
            gate.set()
            await until(lambda: not node.gateway.hub.rooms, "the room goes")
            assert not node.gateway.registry.by_id
            assert not node.gateway.registry.of_user("ann")
            assert peer.session.connection is LOST


class TestHeartbeat:
    async def test_a_silent_client_is_closed_and_any_sign_of_life_will_do(self) -> None:
        async with Node(ping_interval=25, pong_timeout=10) as node:
            silent, alive = await node.connect(), await node.connect()
            for peer in (silent, alive):
                due = peer.session._next_wake()
                assert due <= node.gateway.now() + 25
                again = peer.session.on_timer(due)
                assert peer.events[-1] == {"type": "ping"}
                assert again == pytest.approx(due + 10)
                if peer is alive:
                    peer.send({"type": "unsubscribe", "room": "whatever"})
                peer.session.on_timer(due + 10)
            assert goodbye(silent) == 3012
            assert alive.connection.closed is None
            assert alive.session._next_wake() == pytest.approx(alive.session._ping_due)


class TestTheEnd:
    async def test_goodbye_is_last_and_waits_for_what_is_queued_but_not_for_long(self) -> None:
        """O3."""
        async with Node() as node:
            patient, stuck = await node.connect("a", "chat:x"), await node.connect("b", "chat:x")
            for peer in (patient, stuck):
                peer.stop_reading()
            await node.gateway.publish("chat:x", "last words")
            await node.settled()
            for peer in (patient, stuck):
                peer.session.end(FORCE_DISCONNECT)
                peer.session.end(FORCE_DISCONNECT)
                assert peer.connection.closed is None
            patient.read_again()
            assert patient.data("chat:x") == ["last words"]
            assert goodbye(patient) == 3503
            stuck.session.on_timer(node.gateway.now() + FLUSH_TIMEOUT)
            assert stuck.connection.closed == (3503, "force disconnect")

    async def test_the_flush_ends_too_when_the_transport_has_the_last_words(self) -> None:
        """O3: the outbox is empty, and the client never reads what the transport holds."""
        async with Node() as node:
            peer = await node.connect("a", "chat:x")
            peer.stop_reading()
            await node.gateway.publish("chat:x", "last words")
            await node.settled()
            peer.session.end(FORCE_DISCONNECT)
            peer.stop_reading(after=2)
            peer.session.resume_writing()
            assert peer.events[-1]["type"] == "goodbye"
            assert peer.connection.closed is None
            peer.session.on_timer(node.gateway.now() + FLUSH_TIMEOUT)
            assert goodbye(peer) == 3503

    async def test_nothing_is_written_to_a_lost_connection_even_if_leaving_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its descriptor is soon another client's."""
        async with Node() as node:
            peer, other = await node.connect("a", "chat:x", "chat:y"), await node.connect("b", "chat:y")

            def broken(_: object) -> None:
                raise OverflowError

            with monkeypatch.context() as failing:
                failing.setattr(node.gateway.hub, "flush", broken)
                with pytest.raises(OverflowError):
                    peer.lose()
            before = len(peer.connection.sent)
            await node.gateway.publish("chat:y", 1)
            await until(lambda: other.data("chat:y"), "the publication")
            assert len(peer.connection.sent) == before

    async def test_where_to_come_back_there_is_jitter(self) -> None:
        """N6."""
        async with Node() as node:
            peers = [await node.connect() for _ in range(10)]
            await node.gateway.drain(0)
            waits = [peer.events[-1]["reconnect_in_ms"] for peer in peers]
            assert {goodbye(peer) for peer in peers} == {3001}
            assert all(0 <= wait < 1000 for wait in waits)
            assert len(set(waits)) > 1

    async def test_what_nobody_expected_ends_this_session_only(self) -> None:
        """H2."""

        async def broken(*_: Any) -> None:
            raise ValueError("a bug")

        async with Node() as node:
            peer, other = await node.connect(), await node.connect()
            node.gateway.hub.join = broken  # type: ignore[method-assign,assignment]
            peer.send({"type": "subscribe", "room": "chat:x"})
            await until(lambda: peer.connection.closed, "the session ends")
            assert goodbye(peer) == 3004
            assert (await other.ask("ping"))["type"] == "pong"

    async def test_lost_counts_once_with_the_code_that_the_server_gave(self) -> None:
        async with Node() as node:
            gone, sent_away = await node.connect(), await node.connect()
            gone.lose(1001)
            gone.lose(1001)
            sent_away.session.end(FORCE_DISCONNECT)
            sent_away.lose(1006)
            assert dict(node.gateway.counters.closed) == {1001: 1, 3503: 1}


class TestHooks:
    async def test_a_hook_that_refuses_decides(self) -> None:
        class Hooks:
            @staticmethod
            async def on_subscribe(client: Any, room: str) -> bool:
                if room == "chat:raise":
                    raise CommandError(PERMISSION_DENIED, "not for you")
                return room != "chat:no"

        async with Node(hooks=Hooks, namespaces={"chat": {"subscribe": "hook"}}) as node:
            peer = await node.connect()
            assert (await peer.ask("subscribe", room="chat:no"))["code"] == 103
            assert (await peer.ask("subscribe", room="chat:raise"))["reason"] == "not for you"
            assert (await peer.ask("subscribe", room="chat:yes"))["type"] == "ok"


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
                lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner)),
                max_leaves=5,
            ),
            st.fixed_dictionaries(
                {"type": st.sampled_from(["auth", "subscribe", "unsubscribe", "publish", "history", "rpc", "ping"])},
                optional={
                    "id": st.one_of(st.integers(), st.text(max_size=5)),
                    "room": st.sampled_from(["chat:x", "lobby", "#ann", "nobody:x", ""]),
                    "data": st.one_of(st.integers(), st.text(max_size=5), st.none()),
                    "token": st.text(max_size=10),
                    "method": st.text(min_size=1, max_size=5),
                },
            ),
        ),
        max_size=12,
    ),
    st.sampled_from(FORMATS),
)
def test_whatever_a_client_sends_each_message_is_answered_and_nobody_else_is_harmed(
    messages: list[Any], format: Format
) -> None:
    async def play() -> None:
        async with Node(message_rate=0) as node:
            other, peer = await node.connect("other", "chat:x"), await node.connect("ann", format=format)
            for message in messages:
                with suppress(OverflowError):  # an integer that MessagePack cannot say
                    peer.send(message)
            if peer.connection.closed is None:
                peer.send({"type": "ping", "id": "the end"})
                await until(
                    lambda: peer.connection.closed or any(e.get("id") == "the end" for e in peer.events), "an answer"
                )
            if peer.connection.closed is not None:
                assert goodbye(peer) == 3500, "only a bad token ends a session here"
            assert node.gateway.counters.closed.get(3004) is None
            assert (await other.ask("ping"))["type"] == "pong"
            peer.lose()
            other.lose()
            await until(lambda: not node.gateway.hub.rooms, "all rooms go")
            assert not node.gateway.registry.by_id

    asyncio.run(play())
