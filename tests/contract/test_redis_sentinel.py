"""A master that its Sentinels replace: the node follows, and offsets never look like the old ones (P3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.broker.base import Broker, History, Position
from tests.support.brokers import ENVELOPE, Recorder, hearing, hears, settings_for
from tests.support.valkey import Trio
from tests.support.waiting import until

HISTORY = History(size=1000, ttl=60, meta_ttl=3600)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Trio]:
    """A trio to break."""
    with Trio(tmp_path).running() as running:
        yield running


async def publish(broker: Broker, times: int) -> Position:
    return [await broker.publish("room", ENVELOPE, history=HISTORY) for _ in range(times)][-1]


async def fail_over(own: Trio, broker: Broker, sink: Recorder) -> None:
    """Kills the master and waits until the node hears again."""
    own.master.kill()
    await until(lambda: sink.events == ["lost", ["room"]], "subscribed at the new master", timeout=30)


async def test_a_failover_in_sync_begins_a_new_epoch(own: Trio) -> None:
    settings = settings_for(own.url, broker_timeout=10)
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        old = await publish(broker, 3)
        key = settings.key_prefix + "{room}:meta"
        await until(lambda: own.replica.do("HGET", key, "offset") == b"3", "the replica is in sync")
        await fail_over(own, broker, sink)
        page = await broker.read("room", HISTORY, since=None, limit=10)
        assert page.top.epoch != old.epoch
        assert page.publications == []
        new = await publish(broker, 1)
        assert new.epoch == page.top.epoch
        assert new.offset == 1
        await until(lambda: hears(broker, settings), "it hears")
        await until(lambda: sink.publications[-1][1] == new, "heard at the new master")


async def test_a_failover_to_a_replica_that_is_behind_begins_a_new_epoch(own: Trio) -> None:
    settings = settings_for(own.url, broker_timeout=10)
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        await publish(broker, 3)
        own.replica.freeze()
        old = await publish(broker, 100)
        assert old.offset == 103
        own.master.freeze()  # what the replica has not read yet is never sent
        own.master.kill()
        own.replica.thaw()
        await until(lambda: sink.events == ["lost", ["room"]], "subscribed at the new master", timeout=30)
        new = await publish(broker, 1)
        assert new.epoch != old.epoch
        assert new.offset == 1


async def test_sentinels_may_be_away_while_the_master_is_there(trio: Trio) -> None:
    hosts = f"127.0.0.1:1,127.0.0.1:2,127.0.0.1:{trio.sentinels[0].port}"
    async with hearing(settings_for(f"redis+sentinel://{hosts}/{Trio.NAME}")) as (broker, _):
        assert (await publish(broker, 1)).offset == 1


async def test_an_old_master_that_the_sentinels_have_left_is_left(own: Trio) -> None:
    """Split brain: only this node would still talk to it, and its canary would say that all is well."""
    settings = settings_for(own.url, broker_echo_interval=0.1, broker_deaf_after=0.3)
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        for sentinel in own.sentinels:
            sentinel.do("SENTINEL", "REMOVE", Trio.NAME)
            sentinel.do("SENTINEL", "MONITOR", Trio.NAME, "127.0.0.1", own.replica.port, 2)
        own.replica.do("REPLICAOF", "NO", "ONE")
        await until(lambda: sink.events == ["lost", ["room"]], "moved to the new master", timeout=10)
        await broker.publish("room", ENVELOPE, history=None)
        await until(lambda: sink.heard("room"), "heard")
        assert b"carillon:" not in own.master.do("CLIENT", "LIST")
