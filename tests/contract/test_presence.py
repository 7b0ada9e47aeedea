"""Who is in a room, on each kind of broker (A1)."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.broker.base import Attended, Broker, Member, Presence, Present
from app.settings import Settings
from tests.support.brokers import Pair, Recorder, hearing, settings_for, until_answered
from tests.support.valkey import Server
from tests.support.waiting import until

QUIET = Presence(ttl=60, leave_delay=None, batch=1)
TOLD = Presence(ttl=60, leave_delay=0, batch=0.1)

ANN, ANN_AGAIN, BOB = Member("ann", "s1"), Member("ann", "s2"), Member("bob", "s3")


def found(present: Present) -> tuple[int, int, set[str]]:
    return present.sessions, present.users, {member.session for member in present.members}


async def until_gone(broker: Broker, room: str, presence: Presence) -> None:
    async def gone() -> bool:
        return not (await broker.present(room, presence, 10)).sessions

    await until_answered(gone, "nobody is there")


async def told(broker: Broker, sink: Recorder, presence: Presence, count: int) -> list[Any]:
    """Asks for the news when they are due, until so many have come."""

    async def all_heard() -> bool:
        await broker.attend("room", presence)
        return len(sink.presence) >= count

    await until_answered(all_heard, f"{count} news")
    assert {room for room, _ in sink.presence} == {"room"}
    return [news for _, news in sink.presence]


async def test_members_are_counted_by_session_and_user(pair: Pair) -> None:
    broker, _ = pair
    assert found(await broker.present("room", QUIET, 10)) == (0, 0, set())
    await broker.attend("room", QUIET, came=[ANN, ANN_AGAIN])
    await broker.attend("room", QUIET, came=[BOB])
    await broker.attend("other", QUIET, came=[Member("eve", "s4")])
    present = await broker.present("room", QUIET, 10)
    assert found(present) == (3, 2, {"s1", "s2", "s3"})
    assert set(present.members) == {ANN, ANN_AGAIN, BOB}
    await broker.attend("room", QUIET, went=["s1", "s3", "never seen"])
    assert found(await broker.present("room", QUIET, 10)) == (1, 1, {"s2"})


async def test_who_comes_twice_or_goes_twice_counts_once(pair: Pair) -> None:
    """A call that was not answered is repeated."""
    broker, _ = pair
    for _ in range(2):
        await broker.attend("room", QUIET, came=[ANN, ANN_AGAIN])
    for _ in range(2):
        await broker.attend("room", QUIET, went=["s1"])
    assert found(await broker.present("room", QUIET, 10)) == (1, 1, {"s2"})


async def test_only_so_many_are_named(pair: Pair) -> None:
    broker, _ = pair
    await broker.attend("room", QUIET, came=[Member(f"u{n}", f"s{n}") for n in range(1500)])
    for limit in (0, 1, 700):
        present = await broker.present("room", QUIET, limit)
        assert (present.sessions, present.users, len(set(present.members))) == (1500, 1500, limit)


async def test_strange_names_are_names(pair: Pair) -> None:
    broker, sink = pair
    user = 'a:{b} "c"\n\\/*é😀'
    await broker.subscribe("room")
    await broker.attend("room", TOLD, came=[Member(user, "s1")])
    assert (await broker.present("room", TOLD, 10)).members == [Member(user, "s1")]
    assert await told(broker, sink, TOLD, 1) == [{"joined": [user]}]


async def test_what_is_not_refreshed_vanishes(pair: Pair) -> None:
    """A1: the node was killed."""
    broker, _ = pair
    short = replace(QUIET, ttl=0.2)
    await broker.attend("room", short, came=[ANN])
    assert (await broker.present("room", short, 10)).sessions == 1
    await until_gone(broker, "room", short)


async def test_a_node_that_was_away_for_long_learns_it(pair: Pair) -> None:
    """A1: and writes its entries again."""
    broker, _ = pair
    short = replace(QUIET, ttl=0.1)
    assert (await broker.attend("room", QUIET, came=[ANN])).sessions == 1
    assert (await broker.attend("room", QUIET, came=[BOB])).sessions == 2
    await broker.attend("room", short)
    await until_gone(broker, "room", short)
    assert await broker.attend("room", QUIET) == Attended(sessions=0, news_in=None)
    await broker.attend("room", QUIET, came=[ANN, BOB], whole=True)
    assert found(await broker.present("room", QUIET, 10)) == (2, 2, {"s1", "s3"})


async def test_the_whole_takes_the_place_of_what_was_said(pair: Pair) -> None:
    """What could not be said while the broker was away is made good."""
    broker, _ = pair
    await broker.attend("room", QUIET, came=[ANN, BOB])
    await broker.attend("room", QUIET, came=[ANN_AGAIN, BOB], whole=True)
    assert found(await broker.present("room", QUIET, 10)) == (2, 2, {"s2", "s3"})
    await broker.attend("room", QUIET, whole=True)
    assert found(await broker.present("room", QUIET, 10)) == (0, 0, set())


class TestNews:
    async def test_users_join_with_their_first_session_and_leave_with_their_last(self, pair: Pair) -> None:
        broker, sink = pair
        await broker.subscribe("room")
        answer = await broker.attend("room", TOLD, came=[ANN, BOB, ANN_AGAIN])
        assert answer.news_in is not None
        assert 0 < answer.news_in <= TOLD.batch
        (news,) = await told(broker, sink, TOLD, 1)
        assert {kind: sorted(users) for kind, users in news.items()} == {"joined": ["ann", "bob"]}
        await broker.attend("room", TOLD, went=["s1", "s3"])
        assert (await told(broker, sink, TOLD, 2))[1] == {"left": ["bob"]}
        assert (await broker.attend("room", TOLD)).news_in is None

    async def test_who_is_back_in_time_makes_no_noise(self, pair: Pair) -> None:
        broker, sink = pair
        await broker.subscribe("room")
        patient = replace(TOLD, leave_delay=5)
        await broker.attend("room", patient, came=[ANN])
        await told(broker, sink, patient, 1)
        answer = await broker.attend("room", patient, went=["s1"])
        assert answer.news_in is not None
        assert 4.9 < answer.news_in <= 5.1
        assert (await broker.present("room", patient, 10)).sessions == 0, "the list itself is exact"
        assert (await broker.attend("room", patient, came=[ANN_AGAIN])).news_in is None
        assert len(sink.presence) == 1

    async def test_who_goes_before_anybody_was_told_never_came(self, pair: Pair) -> None:
        broker, sink = pair
        await broker.subscribe("room")
        await broker.attend("room", TOLD, came=[ANN])
        answer = await broker.attend("room", TOLD, went=["s1"])
        if answer.news_in is not None:  # a batch ended between the two
            assert await told(broker, sink, TOLD, 2) == [{"joined": ["ann"]}, {"left": ["ann"]}]

    async def test_without_events_there_are_none(self, pair: Pair) -> None:
        broker, sink = pair
        await broker.subscribe("room")
        assert (await broker.attend("room", QUIET, came=[ANN])).news_in is None
        assert (await broker.attend("room", QUIET, went=["s1"])).news_in is None
        assert sink.presence == []


class TestWhatIsWritten:
    @pytest.fixture
    def settings(self, valkey: Server) -> Settings:
        return settings_for(valkey.url)

    async def test_every_key_ends_by_itself(self, pair: Pair, valkey: Server, settings: Settings) -> None:
        """Invariant 2: whichever nodes die."""
        broker, _ = pair
        patient = replace(TOLD, ttl=20, leave_delay=30)
        await broker.attend("room", patient, came=[ANN, BOB])
        await broker.attend("room", patient, went=["s3"])
        keys = valkey.do("KEYS", f"{settings.key_prefix}{{room}}:*")
        kinds = {key.decode().removeprefix(settings.key_prefix) for key in keys}
        assert kinds == {f"{{room}}:presence:{kind}" for kind in ("members", "users", "nodes", "counts", "news")}
        for key in keys:
            assert 50 < valkey.do("PTTL", key) / 1000 <= 60, "the news must outlive their delay"

    async def test_nothing_is_left_when_all_have_gone(self, pair: Pair, valkey: Server, settings: Settings) -> None:
        broker, _ = pair
        await broker.attend("room", QUIET, came=[ANN, ANN_AGAIN, BOB])
        assert not valkey.do("EXISTS", f"{settings.key_prefix}{{room}}:presence:news"), "nobody is to be told"
        await broker.attend("room", QUIET, went=["s1", "s2", "s3"])
        assert valkey.do("KEYS", f"{settings.key_prefix}{{room}}:*") == []

    async def test_a_count_that_was_lost_is_set_right(self, pair: Pair, valkey: Server, settings: Settings) -> None:
        """By a server that evicts keys, or a hand."""
        broker, _ = pair
        await broker.attend("room", QUIET, came=[ANN, BOB])
        valkey.do("DEL", f"{settings.key_prefix}{{room}}:presence:counts")
        assert (await broker.attend("room", QUIET)).sessions == 0
        assert (await broker.attend("room", QUIET, came=[ANN, BOB], whole=True)).sessions == 2
        assert (await broker.attend("room", QUIET)).sessions == 2


class TestBetweenNodes:
    @pytest.fixture(params=["redis", "sentinel", "cluster"])
    def url(self, request: pytest.FixtureRequest) -> str:
        found: str = request.getfixturevalue({"redis": "valkey", "sentinel": "trio"}.get(request.param, "cluster")).url
        return found

    async def test_all_see_the_members_of_all(self, settings: Settings) -> None:
        async with hearing(settings, "one") as (one, _), hearing(settings, "two") as (two, _):
            rooms = [f"chat:{n}" for n in range(20)]  # in a cluster on all shards
            await asyncio.gather(*(one.attend(room, QUIET, came=[ANN]) for room in rooms))
            await asyncio.gather(*(two.attend(room, QUIET, came=[ANN_AGAIN, BOB]) for room in rooms))
            for room in rooms:
                assert found(await one.present(room, QUIET, 10)) == (3, 2, {"s1", "s2", "s3"})
            await two.attend("chat:1", QUIET, came=[BOB], whole=True)
            assert found(await one.present("chat:1", QUIET, 10)) == (2, 2, {"s1", "s3"}), "only what is its own"

    async def test_exactly_one_tells_of_what_is_due(self, settings: Settings) -> None:
        """A1"""
        async with hearing(settings, "one") as (one, heard_by_one), hearing(settings, "two") as (two, heard_by_two):
            await asyncio.gather(one.subscribe("room"), two.subscribe("room"))
            await one.attend("room", TOLD, came=[ANN])

            async def claimed() -> bool:
                await asyncio.gather(*(broker.attend("room", TOLD) for broker in (one, two) * 5))
                return bool(heard_by_one.presence)

            await until_answered(claimed, "told")
            await until(lambda: heard_by_two.presence, "the other node has heard it too")
            await one.send_control(b"last")
            await until(lambda: heard_by_one.controls and heard_by_two.controls, "nothing more comes")
            assert heard_by_one.presence == heard_by_two.presence == [("room", {"joined": ["ann"]})]

    async def test_the_members_of_a_killed_node_leave(self, settings: Settings) -> None:
        """A1: claimed by one of those that live, and told at once: they have been gone for long."""
        patient = replace(TOLD, leave_delay=30)
        async with hearing(settings, "one") as (one, sink), hearing(settings, "two") as (two, _):
            await one.subscribe("room")
            await one.attend("room", patient, came=[ANN])
            await two.attend("room", patient, came=[ANN_AGAIN, BOB])

            async def both_joined() -> bool:
                await one.attend("room", patient)
                return {user for _, news in sink.presence for user in news["joined"]} == {"ann", "bob"}

            await until_answered(both_joined, "both have joined, in one batch or in two")
            before = len(sink.presence)
            await two.attend("room", replace(patient, ttl=0.05))
            assert (await told(one, sink, patient, before + 1))[before:] == [{"left": ["bob"]}]
            assert found(await one.present("room", patient, 10)) == (1, 1, {"s1"})
