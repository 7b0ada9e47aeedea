"""What every broker promises (app/broker/base.py), on each kind."""

import asyncio
import math
import time
from functools import partial

import pytest

from app.broker.base import NO_POSITION, History, Position
from app.broker.factory import create_broker
from app.codes import BAD_REQUEST, TOO_MANY_REQUESTS, CommandError
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, Pair, hearing, settings_for, started, until_answered
from tests.support.waiting import until


async def test_it_is_connected_between_start_and_stop(settings: Settings) -> None:
    broker = create_broker(settings, "node")
    assert not broker.connected
    async with hearing(settings) as (broker, _):
        assert broker.connected
    assert not broker.connected


async def test_a_publication_comes_as_it_was_sent(pair: Pair) -> None:
    broker, sink = pair
    envelope = ENVELOPE + bytes(range(256)) + b":\r\n:" + "ü€😀".encode()
    await broker.subscribe("chat:lobby")
    await broker.publish("chat:lobby", envelope, history=None)
    await until(lambda: sink.publications, "heard")
    assert sink.publications == [("chat:lobby", NO_POSITION, envelope)]


async def test_a_room_without_history_has_no_position(pair: Pair) -> None:
    """P1"""
    broker, _ = pair
    assert await broker.publish("quiet", ENVELOPE, history=None) == Position("", 0)
    assert await broker.publish("quiet", ENVELOPE, history=None, idempotency_key="k") == Position("", 0)


async def test_offsets_rise_by_one_in_one_epoch(pair: Pair) -> None:
    """Invariant 1: what is heard is what was answered, in order."""
    broker, sink = pair
    await broker.subscribe("chat:a")
    answered = [await broker.publish("chat:a", ENVELOPE + b"%d" % n, history=HISTORY) for n in range(12)]
    assert [position.offset for position in answered] == list(range(1, 13))
    assert len({position.epoch for position in answered}) == 1
    assert answered[0].epoch
    await until(lambda: len(sink.publications) == 12, "all heard")
    assert sink.publications == [("chat:a", answered[n], ENVELOPE + b"%d" % n) for n in range(12)]


async def test_publishes_at_once_have_offsets_of_their_own(pair: Pair) -> None:
    broker, _ = pair
    answered = await asyncio.gather(*(broker.publish("busy", ENVELOPE, history=HISTORY) for _ in range(50)))
    assert sorted(position.offset for position in answered) == list(range(1, 51))


async def test_each_room_counts_for_itself(pair: Pair) -> None:
    broker, _ = pair
    await broker.publish("chat:a", ENVELOPE, history=HISTORY)
    assert (await broker.publish("chat:b", ENVELOPE, history=HISTORY)).offset == 1


async def test_only_subscribed_rooms_are_heard(pair: Pair) -> None:
    """Quiet nodes stay quiet."""
    broker, sink = pair
    await broker.subscribe("chat:left")
    await broker.unsubscribe("chat:left")
    await broker.subscribe("chat:in")
    for room in ("chat:out", "chat:left", "chat:in"):
        await broker.publish(room, ENVELOPE + room.encode(), history=None)
    await until(lambda: sink.heard("chat:in"), "heard")
    assert [room for room, _, _ in sink.publications] == ["chat:in"]


async def test_a_room_can_be_left_and_entered_at_once(pair: Pair) -> None:
    """R1: subscribe has returned only when what is published from then on is heard."""
    broker, sink = pair

    def heard(number: int) -> bool:
        return len(sink.publications) == number

    await broker.subscribe("door")
    for number in range(20):
        await broker.unsubscribe("door")
        await broker.subscribe("door")
        await broker.publish("door", ENVELOPE + b"%d" % number, history=None)
        await until(partial(heard, number + 1), f"publication {number} heard")


async def test_a_subscription_counts_from_its_confirmation(pair: Pair) -> None:
    """R1, for many rooms at once."""
    broker, sink = pair
    rooms = [f"chat:{n}" for n in range(300)]
    await asyncio.gather(*(broker.subscribe(room) for room in rooms))
    await asyncio.gather(*(broker.publish(room, ENVELOPE + room.encode(), history=None) for room in rooms))
    await until(lambda: len(sink.publications) == 300, "all heard")
    assert {(room, envelope) for room, _, envelope in sink.publications} == {(r, ENVELOPE + r.encode()) for r in rooms}


async def test_publish_never_calls_the_sink_itself(pair: Pair) -> None:
    """A sink that publishes would be entered again."""
    broker, sink = pair
    await broker.subscribe("chat:a")
    publishing = broker.publish("chat:a", ENVELOPE, history=None)
    try:
        publishing.send(None)  # runs until its first wait
    except StopIteration:
        pass
    else:
        publishing.close()
    assert sink.publications == []


class TestIdempotency:
    """P4"""

    @pytest.mark.parametrize("history", [HISTORY, None], ids=["history", "no history"])
    async def test_a_repeated_key_publishes_once_and_answers_the_same(
        self, pair: Pair, history: History | None
    ) -> None:
        broker, sink = pair
        await broker.subscribe("once")
        first = await broker.publish("once", ENVELOPE + b"x", history=history, idempotency_key="key")
        await broker.publish("once", ENVELOPE + b"between", history=history)
        assert await broker.publish("once", ENVELOPE + b"x", history=history, idempotency_key="key") == first
        await broker.publish("once", ENVELOPE + b"last", history=history)
        await until(lambda: ENVELOPE + b"last" in sink.heard("once"), "the last one heard")
        assert [envelope[1:] for envelope in sink.heard("once")] == [b"x", b"between", b"last"]

    async def test_at_once_too(self, pair: Pair) -> None:
        broker, _ = pair
        same = [broker.publish("once", ENVELOPE, history=HISTORY, idempotency_key="k") for _ in range(10)]
        assert {position.offset for position in await asyncio.gather(*same)} == {1}

    @pytest.mark.parametrize("history", [HISTORY, None], ids=["history", "no history"])
    async def test_other_data_under_the_same_key_is_a_bad_request(self, pair: Pair, history: History | None) -> None:
        broker, _ = pair
        await broker.publish("once", ENVELOPE + b"x", history=history, idempotency_key="key")
        with pytest.raises(CommandError, match="idempotency key was used with other data") as refused:
            await broker.publish("once", ENVELOPE + b"y", history=history, idempotency_key="key")
        assert refused.value.error is BAD_REQUEST

    async def test_only_the_data_must_be_the_same(self, pair: Pair) -> None:
        """A client that repeats after a reconnect has another session id in its envelope."""
        broker, _ = pair
        first = await broker.publish(
            "once", ENVELOPE + b"session 1", history=HISTORY, idempotency_key="key", data=b"data"
        )
        again = await broker.publish(
            "once", ENVELOPE + b"session 2", history=HISTORY, idempotency_key="key", data=b"data"
        )
        assert first == again

    async def test_a_key_belongs_to_its_room(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.publish("room:a", ENVELOPE + b"x", history=HISTORY, idempotency_key="key")
        assert (await broker.publish("room:b", ENVELOPE + b"y", history=HISTORY, idempotency_key="key")).offset == 1

    async def test_a_key_is_forgotten_after_its_time(self, url: str) -> None:
        async with hearing(settings_for(url, idempotency_ttl=0.05)) as (broker, _):
            await broker.publish("once", ENVELOPE, history=HISTORY, idempotency_key="key")

            async def is_a_new_one() -> bool:
                return (await broker.publish("once", ENVELOPE, history=HISTORY, idempotency_key="key")).offset == 2

            await until_answered(is_a_new_one, "the key is forgotten")


class TestPosition:
    """P5"""

    async def test_it_is_that_of_the_last_publication(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.publish("chat:a", ENVELOPE, history=HISTORY)
        last = await broker.publish("chat:a", ENVELOPE, history=HISTORY)
        assert (await broker.read("chat:a", HISTORY, since=None, limit=0)).top == last

    async def test_an_unknown_room_begins_an_epoch_that_stays(self, pair: Pair) -> None:
        broker, _ = pair
        begun = (await broker.read("chat:new", HISTORY, since=None, limit=0)).top
        assert begun.epoch
        assert begun.offset == 0
        assert (await broker.read("chat:new", HISTORY, since=None, limit=0)).top == begun
        assert await broker.publish("chat:new", ENVELOPE, history=HISTORY) == Position(begun.epoch, 1)

    async def test_a_room_that_nobody_used_for_long_begins_anew(self, pair: Pair) -> None:
        broker, _ = pair
        short = History(size=5, ttl=0.01, meta_ttl=0.05)
        first = await broker.publish("chat:old", ENVELOPE, history=short)

        async def is_another_epoch() -> bool:
            return (await broker.publish("chat:old", ENVELOPE, history=short)).epoch != first.epoch

        # Each publish refreshes the time, so look rarely.
        await until_answered(is_another_epoch, "a new epoch", every=0.1)


async def test_control_messages_reach_the_sender_too(pair: Pair) -> None:
    broker, sink = pair
    await broker.send_control(b"\x01\x00:control")
    await until(lambda: sink.controls, "heard")
    assert sink.controls == [b"\x01\x00:control"]
    assert sink.publications == []


class TestTickets:
    async def test_a_value_is_taken_once(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.put("ticket", b"\x00value", 60)
        taken = await asyncio.gather(*(broker.take("ticket") for _ in range(5)))
        assert (taken.count(b"\x00value"), taken.count(None)) == (1, 4)

    async def test_nothing_comes_of_an_unknown_key(self, pair: Pair) -> None:
        broker, _ = pair
        assert await broker.take("nothing") is None

    async def test_a_value_ends_with_its_time(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.put("short", b"value", 0.01)
        await broker.put("long", b"value", 60)
        await asyncio.sleep(0.03)  # its time, nothing that could be waited for
        assert await broker.take("short") is None
        assert await broker.take("long") == b"value"


class TestUsers:
    async def test_no_more_than_the_limit_come_in(self, pair: Pair) -> None:
        broker, _ = pair
        asked = [broker.admit_user("ann", f"session{n}", 3) for n in range(10)]
        assert sum(await asyncio.gather(*asked)) == 3
        assert await broker.admit_user("bob", "session", 3)

    async def test_a_session_counts_once(self, pair: Pair) -> None:
        broker, _ = pair
        assert await broker.admit_user("ann", "one", 1)
        assert await broker.admit_user("ann", "one", 1)

    async def test_who_leaves_makes_room(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.admit_user("ann", "one", 1)
        assert not await broker.admit_user("ann", "two", 1)
        await broker.dismiss_user("ann", "one")
        assert await broker.admit_user("ann", "two", 1)

    async def test_a_refresh_counts_a_session_that_was_forgotten(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.refresh_users([("ann", "one"), ("ann", "two"), ("bob", "one")])
        assert not await broker.admit_user("ann", "three", 2)
        assert await broker.admit_user("bob", "two", 2)

    async def test_strange_names_are_names(self, pair: Pair) -> None:
        broker, _ = pair
        assert await broker.admit_user("{a} b:\n*é", "s", 1)
        assert not await broker.admit_user("{a} b:\n*é", "t", 1)


class TestRevocations:
    """The list that every node reads when it starts."""

    async def test_it_is_read_as_it_was_written(self, pair: Pair) -> None:
        broker, _ = pair
        until_then = time.time() + 60.5
        assert await broker.revoke(b'1["user","{a} b:\n",5.25]', until_then, 10)
        assert await broker.revoke(b"other", until_then + 1e9, 10)
        listed = await broker.revoked()
        assert listed == {b'1["user","{a} b:\n",5.25]': pytest.approx(until_then), b"other": until_then + 1e9}

    async def test_an_entry_only_ever_ends_later(self, pair: Pair) -> None:
        broker, _ = pair
        now = float(round(time.time()))
        for more in (60, 90, 30):
            assert await broker.revoke(b"entry", now + more, 10)
        assert await broker.revoked() == {b"entry": now + 90}

    async def test_a_full_list_takes_no_more_until_something_has_expired(self, pair: Pair) -> None:
        broker, _ = pair
        await broker.revoke(b"long", time.time() + 60, 2)
        await broker.revoke(b"past", time.time() - 5, 2)
        assert await broker.revoke(b"third", time.time() + 60, 2), "what has expired makes room"
        assert not await broker.revoke(b"fourth", time.time() + 60, 2)
        assert await broker.revoke(b"long", time.time() + 90, 2), "what is there may be said again"
        assert sorted(await broker.revoked()) == [b"long", b"third"]

    async def test_nothing_of_a_long_list_is_left_out(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.broker.redis.REVOCATIONS_PAGE", 10)
        broker, _ = pair
        entries = [b"%d" % number for number in range(40)]
        await asyncio.gather(*(broker.revoke(entry, time.time() + 60, 100) for entry in entries))
        assert sorted(await broker.revoked()) == sorted(entries)


async def test_it_hears_itself(pair: Pair, settings: Settings) -> None:
    broker, _ = pair
    assert broker.connected
    assert 0 <= broker.echo_age < settings.broker_deaf_after


async def test_it_counts(pair: Pair) -> None:
    broker, sink = pair
    await broker.subscribe("chat:a")
    await broker.publish("chat:a", ENVELOPE, history=None)
    await until(lambda: sink.publications, "heard")
    stats = broker.stats
    assert (stats.publishes, stats.received, stats.publish_errors) == (1, 1, 0)


class TestBetweenNodes:
    """Brokers that several processes share."""

    @pytest.fixture(params=["redis", "sentinel", "cluster"])
    def url(self, request: pytest.FixtureRequest) -> str:
        found: str = request.getfixturevalue({"redis": "valkey", "sentinel": "trio"}.get(request.param, "cluster")).url
        return found

    async def test_every_node_hears_the_same(self, settings: Settings) -> None:
        async with hearing(settings, "one") as (one, heard_by_one), hearing(settings, "two") as (two, heard_by_two):
            rooms = [f"chat:{n}" for n in range(10)]
            for room in rooms:
                await asyncio.gather(one.subscribe(room), two.subscribe(room))
            for broker in (one, two):
                await asyncio.gather(*(broker.publish(room, ENVELOPE, history=HISTORY) for room in rooms))
            await until(lambda: len(heard_by_one.publications) == len(heard_by_two.publications) == 20, "all heard")
            for room in rooms:
                of_one = [heard for heard in heard_by_one.publications if heard[0] == room]
                assert of_one == [heard for heard in heard_by_two.publications if heard[0] == room]
                assert [position.offset for _, position, _ in of_one] == [1, 2]

    async def test_control_reaches_all(self, settings: Settings) -> None:
        async with hearing(settings, "one") as (one, heard_by_one), hearing(settings, "two") as (_, heard_by_two):
            await one.send_control(b"hello")
            await until(lambda: heard_by_one.controls and heard_by_two.controls, "both heard it")

    async def test_keys_tickets_and_users_are_shared(self, settings: Settings) -> None:
        async with hearing(settings, "one") as (one, _), hearing(settings, "two") as (two, _):
            first = await one.publish("once", ENVELOPE, history=HISTORY, idempotency_key="k")
            assert await two.publish("once", ENVELOPE, history=HISTORY, idempotency_key="k") == first
            await one.put("ticket", b"value", 60)
            assert await two.take("ticket") == b"value"
            assert await one.admit_user("ann", "s1", 1)
            assert not await two.admit_user("ann", "s2", 1)
            await one.revoke(b"entry", 1e10, 10)
            assert await two.revoked() == {b"entry": 1e10}

    async def test_deployments_with_other_prefixes_do_not_meet(self, url: str) -> None:
        async with (
            hearing(settings_for(url)) as (one, _),
            hearing(settings_for(url)) as (two, heard_by_two),
        ):
            await two.subscribe("room")
            await one.publish("room", ENVELOPE + b"one", history=HISTORY)
            await one.send_control(b"one")
            assert (await two.publish("room", ENVELOPE + b"two", history=HISTORY)).offset == 1
            await until(lambda: heard_by_two.publications, "heard")
            assert heard_by_two.heard("room") == [ENVELOPE + b"two"]
            assert heard_by_two.controls == []

    async def test_a_node_with_a_former_nodes_id_is_another_one(self, settings: Settings) -> None:
        """Its own keys must not answer for the former one's publications."""
        for expected in (1, 2):
            async with hearing(settings, "same id") as (broker, _):
                assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == expected

    async def test_publishes_under_way_are_bounded(self, url: str) -> None:
        async with hearing(settings_for(url, broker_max_pending=3)) as (broker, _):
            asked = [broker.publish("room", ENVELOPE, history=HISTORY) for _ in range(5)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, CommandError)]
            assert [error.error for error in refused] == [TOO_MANY_REQUESTS] * 2
            assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == 4

    async def test_it_is_deaf_until_it_has_heard_itself(self, settings: Settings) -> None:
        async with started(settings) as (broker, _):
            assert broker.echo_age == math.inf
            assert not broker.connected
