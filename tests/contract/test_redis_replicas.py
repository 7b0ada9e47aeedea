"""`broker_wait_replicas`: a publish that was answered is on so many replicas (P3)."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from app.broker.base import Broker, BrokerUnavailable
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, Recorder, hearing, hears, settings_for
from tests.support.valkey import Server, server
from tests.support.waiting import until, wait_until


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("primary")) as running:
        yield running


@pytest.fixture(scope="module")
def replica(primary: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("replica"), "--replicaof", "127.0.0.1", str(primary.port)) as running:
        # Online, and it has acknowledged something: until then WAIT gets no answer from it.
        for offset in b"", b"[1-9]":
            seen = re.compile(rb"port=%d,state=online,offset=%b" % (running.port, offset))
            wait_until(lambda seen=seen: seen.search(primary.do("INFO", "replication")), "the primary counts on it")
            primary.do("SET", "something", "to acknowledge")
        yield running


@pytest.fixture
def settings(primary: Server) -> Settings:
    return settings_for(primary.url, broker_wait_replicas=1, broker_echo_interval=0.1, broker_deaf_after=0.6)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[tuple[Broker, Recorder]]:
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        yield broker, sink


def waits(primary: Server) -> int:
    """How many WAIT the server has had."""
    stats = primary.do("INFO", "commandstats").decode()
    return int(stats.partition("cmdstat_wait:calls=")[2].partition(",")[0] or 0)


async def test_what_was_answered_is_on_the_replica(
    pair: tuple[Broker, Recorder], settings: Settings, replica: Server
) -> None:
    broker, _ = pair
    for offset in range(1, 20):
        await broker.publish("room", ENVELOPE, history=HISTORY)
        assert replica.do("HGET", settings.key_prefix + "{room}:meta", "offset") == str(offset).encode()


async def test_many_at_once_share_the_waiting(
    pair: tuple[Broker, Recorder], settings: Settings, primary: Server, replica: Server
) -> None:
    broker, _ = pair
    before = waits(primary)
    await asyncio.gather(*(broker.publish("room", ENVELOPE, history=HISTORY) for _ in range(200)))
    assert 1 <= waits(primary) - before <= 20
    assert replica.do("HGET", settings.key_prefix + "{room}:meta", "offset") == b"200"


async def test_without_a_replica_the_outcome_is_unknown_and_a_repetition_finds_it(
    pair: tuple[Broker, Recorder], settings: Settings, replica: Server
) -> None:
    broker, sink = pair
    replica.freeze()
    try:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="outcome unknown: 0 of 1 replicas have it"):
                await broker.publish("room", ENVELOPE, history=HISTORY, idempotency_key="k")
        async with hearing(settings, "another") as (another, _):
            with pytest.raises(BrokerUnavailable, match="outcome unknown: 0 of 1 replicas have it"):
                await another.publish("room", ENVELOPE, history=HISTORY, idempotency_key="k")
    finally:
        replica.thaw()
    assert (await broker.publish("room", ENVELOPE, history=HISTORY, idempotency_key="k")).offset == 1
    assert len(sink.publications) == 1


async def test_a_server_that_will_not_say_leaves_the_outcome_unknown(primary: Server, settings: Settings) -> None:
    """A primary that became a replica in between, or a user without the right to WAIT."""
    primary.do("ACL", "SETUSER", "node", "on", ">secret", "allcommands", "allkeys", "allchannels", "-wait")
    url = f"redis://node:secret@127.0.0.1:{primary.port}"
    async with hearing(settings_for(url, broker_wait_replicas=1, broker_timeout=0.3)) as (broker, _):
        with pytest.raises(BrokerUnavailable, match="outcome unknown"):
            await broker.publish("room", ENVELOPE, history=HISTORY)
        assert (await broker.read("room", HISTORY, since=None, limit=10)).publications == [(1, ENVELOPE)]


@pytest.mark.usefixtures("replica")
async def test_a_room_without_history_waits_for_nobody(pair: tuple[Broker, Recorder], primary: Server) -> None:
    before = waits(primary)
    await pair[0].publish("room", ENVELOPE, history=None)
    assert waits(primary) == before


async def test_a_replica_that_hangs_makes_nobody_deaf(
    pair: tuple[Broker, Recorder], settings: Settings, replica: Server
) -> None:
    """Canaries stand behind the waiting on the same connection."""
    broker, sink = pair
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * settings.broker_deaf_after
    replica.freeze()
    try:
        while loop.time() < end:
            with pytest.raises(BrokerUnavailable):
                await broker.publish("room", ENVELOPE, history=HISTORY)
            assert hears(broker, settings)
    finally:
        replica.thaw()
    await until(lambda: len(sink.publications) >= 4, "heard all the same")
    assert sink.events == []
