"""Rooms of a cluster: each on its shard, and followed when their slot moves or their primary dies (R2, R4)."""

import asyncio
from collections.abc import Iterator

import pytest

from app.broker.base import Position
from app.broker.topology import slot_of
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, Pair, hearing, hears, settings_for
from tests.support.valkey import ClusterOfThree, Server
from tests.support.waiting import until

QUICK = {"broker_echo_interval": 0.1, "broker_deaf_after": 0.5}


@pytest.fixture
def settings(cluster: ClusterOfThree) -> Settings:
    return settings_for(cluster.url, **QUICK)


def owner(cluster: ClusterOfThree, room: str) -> Server:
    """The node that serves the room's slot."""
    slot = slot_of(b"{%b}" % room.encode())
    for first, last, (_, port, *_), *_ in cluster.nodes[1].do("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(node for node in cluster.nodes if node.port == port)
    raise AssertionError(f"nobody serves slot {slot}")


async def test_rooms_are_spread_over_the_shards(pair: Pair, cluster: ClusterOfThree) -> None:
    broker, _ = pair
    rooms = [f"room{n}" for n in range(30)]
    await asyncio.gather(*(broker.subscribe(room) for room in rooms))
    for node in cluster.nodes:
        here = {room for room in rooms if owner(cluster, room) is node}
        channels = {channel.decode() for channel in node.do("PUBSUB", "SHARDCHANNELS")}
        assert here
        assert here == {room for room in rooms if any(f"{{{room}}}" in channel for channel in channels)}


@pytest.mark.usefixtures("pair")
async def test_each_shard_has_a_canary(settings: Settings, cluster: ClusterOfThree) -> None:
    """R2: one deaf connection of three makes the node deaf."""
    for node in cluster.nodes:
        channels = [channel.decode() for channel in node.do("PUBSUB", "SHARDCHANNELS")]
        assert sum(channel.startswith(settings.key_prefix + "node:") for channel in channels) == 1


async def test_one_lost_shard_is_restored_with_its_rooms(pair: Pair, cluster: ClusterOfThree) -> None:
    broker, sink = pair
    rooms = sorted(f"room{n}" for n in range(30))
    await asyncio.gather(*(broker.subscribe(room) for room in rooms))
    node = cluster.nodes[1]
    node.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(sink.events) == 2, "restored")
    assert sink.events == ["lost", [room for room in rooms if owner(cluster, room) is node]]


async def test_a_room_is_followed_when_its_slot_moves(pair: Pair, cluster: ClusterOfThree) -> None:
    broker, sink = pair
    await asyncio.gather(broker.subscribe("moving"), broker.subscribe("staying"))
    source = owner(cluster, "moving")
    target = next(node for node in cluster.nodes if node is not source)
    cluster.move(slot_of(b"{moving}"), source, target)
    await until(lambda: ["moving"] in sink.events, "subscribed at the new owner", timeout=5)
    assert "lost" not in sink.events
    assert (await broker.publish("moving", ENVELOPE + b"moved", history=HISTORY)).offset == 1
    await until(lambda: sink.heard("moving"), "heard at the new owner")


async def test_a_publish_finds_a_room_that_has_moved(pair: Pair, cluster: ClusterOfThree) -> None:
    """MOVED, before this node had another way to know."""
    broker, _ = pair
    source = owner(cluster, "away")
    target = next(node for node in cluster.nodes if node is not source)
    cluster.move(slot_of(b"{away}"), source, target)
    assert (await broker.publish("away", ENVELOPE, history=HISTORY)).offset == 1
    assert (await broker.publish("away", ENVELOPE, history=None)).offset == 0
    assert broker.stats.retries >= 1


async def test_a_reader_finds_a_room_that_has_moved(pair: Pair, cluster: ClusterOfThree) -> None:
    """MOVED, where a read is the first to see it."""
    broker, _ = pair
    source = owner(cluster, "past")
    target = next(node for node in cluster.nodes if node is not source)
    cluster.move(slot_of(b"{past}"), source, target)
    page = await broker.read("past", HISTORY, since=None, limit=10)
    assert (page.top.offset, page.publications) == (0, [])
    assert broker.stats.retries >= 1
    assert await broker.publish("past", ENVELOPE, history=HISTORY) == Position(page.top.epoch, 1)
    assert (await broker.read("past", HISTORY, since=None, limit=10)).publications == [(1, ENVELOPE)]


async def test_a_slot_on_its_way(pair: Pair, cluster: ClusterOfThree) -> None:
    """ASK: what is new goes to the new owner. TRYAGAIN: what takes several keys waits until the slot has moved."""
    broker, _ = pair
    slot = slot_of(b"{migrating}")
    source = owner(cluster, "migrating")
    target = next(node for node in cluster.nodes if node is not source)
    target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", source.do("CLUSTER", "MYID"))
    source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", target.do("CLUSTER", "MYID"))
    try:
        await broker.put("{migrating}", b"ticket", 60)
        assert broker.stats.retries == 1
        assert target.do("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
        publishing = asyncio.create_task(broker.publish("migrating", ENVELOPE, history=HISTORY))
        await until(lambda: broker.stats.retries >= 3, "sent back")
        assert not publishing.done()
    finally:
        cluster.move(slot, source, target)
    assert (await publishing).offset == 1
    assert await broker.take("{migrating}") == b"ticket"


async def test_it_needs_only_one_living_node_of_those_named(cluster: ClusterOfThree) -> None:
    settings = settings_for(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}")
    async with hearing(settings) as (broker, _):
        offsets = [(await broker.publish(f"room{n}", ENVELOPE, history=HISTORY)).offset for n in range(10)]
        assert offsets == [1] * 10


class TestFailover:
    @pytest.fixture
    def own(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfThree]:
        with ClusterOfThree(tmp_path_factory.mktemp("failing-cluster")).running() as running:
            yield running

    @pytest.mark.long
    async def test_a_replica_takes_over(self, own: ClusterOfThree) -> None:
        dying = own.nodes[0]
        settings = settings_for(own.url, broker_timeout=10)
        with own.replica_of(dying):
            async with hearing(settings) as (broker, sink):
                rooms = [f"room{n}" for n in range(30)]
                await asyncio.gather(*(broker.subscribe(room) for room in rooms))
                before = {room: await broker.publish(room, ENVELOPE, history=HISTORY) for room in rooms}
                theirs = sorted(room for room in rooms if owner(own, room) is dying)
                dying.kill()
                await until(lambda: theirs in sink.events, "subscribed at the replica", timeout=30)
                await until(lambda: hears(broker, settings), "it hears")
                heard = len(sink.publications)
                for room in rooms:
                    after = await broker.publish(room, ENVELOPE, history=HISTORY)
                    assert (after.epoch == before[room].epoch) is (room not in theirs)
                await until(lambda: len(sink.publications) == heard + len(rooms), "all heard")

    @pytest.mark.long
    @pytest.mark.parametrize("trusted", [False, True])
    async def test_a_replica_that_was_cut_off_takes_over(self, own: ClusterOfThree, trusted: bool) -> None:
        """P3: it lacks a hundred publications. With `broker_trust_restart`, where it does not belong, only the nodes
        know."""
        dying = own.nodes[0]
        settings = settings_for(own.url, broker_timeout=20, broker_trust_restart=trusted)
        with own.replica_of(dying) as replica:
            async with hearing(settings) as (broker, sink):
                room = next(name for name in map(str, range(100)) if owner(own, name) is dying)
                await broker.subscribe(room)

                async def publish(first: int, last: int) -> Position:
                    envelopes = [ENVELOPE + b"%d" % number for number in range(first, last + 1)]
                    return [await broker.publish(room, one, history=HISTORY) for one in envelopes][-1]

                await publish(1, 3)
                meta = f"{settings.key_prefix}{{{room}}}:meta"
                await until(lambda: b",lag=0" in dying.do("INFO", "replication"), "the replica is in sync")
                dying.cut_off(replica)
                old = await publish(4, 103)
                dying.kill()
                replica.thaw()
                publishing = asyncio.create_task(publish(204, 206))
                await until(lambda: [room] in sink.events, "subscribed at the replica", timeout=30)
                new = await publishing
                assert new.epoch != old.epoch
                assert new.offset == 3
                assert replica.do("HGET", meta, "epoch").decode() == new.epoch
