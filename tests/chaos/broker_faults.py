"""What happens to Valkey: one, a failover by Sentinels, a cluster."""

import asyncio
import random
import shutil
from contextlib import suppress

import redis

from app.broker.topology import slot_of
from tests.chaos.load import room
from tests.chaos.pod_faults import FROZEN
from tests.chaos.site import Cluster, Sentinels, Single
from tests.support.valkey import Server
from tests.support.waiting import until

#: Seconds for which Valkey is away in a restart.
AWAY = 2.0

#: How often subscriptions are killed, and seconds between.
KILLS, KILL_EVERY = 5, 0.4

#: Publications that a replica lacks.
BEHIND = 100

#: Bytes that may wait for a subscriber, and a burst that is more.
BUFFER, BURST = 1_048_576, 200
ONE_OF_BURST = 100_000

#: In one command, so that Valkey writes to nobody meanwhile. An envelope of an unknown version.
_FLOOD = "for i = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], ':0:?' .. string.rep('x', ARGV[2])) end"


async def restart_with_aof(site: Single) -> None:
    site.server.kill()
    await asyncio.sleep(AWAY)
    await asyncio.to_thread(site.server.start)


async def restart_empty(site: Single) -> None:
    """As one that keeps nothing on disk."""
    site.server.kill()
    shutil.rmtree(site.folder / f"aof-{site.server.port}")
    await asyncio.sleep(AWAY)
    await asyncio.to_thread(site.server.start)


async def restore_a_copy(site: Single) -> None:
    """A restart from an older state of the disk: what was confirmed since is gone, the epochs are the same (P3)."""
    aof, copy = site.folder / f"aof-{site.server.port}", site.folder / "copy"
    shutil.copytree(aof, copy)
    before = _publications(site.server)
    await until(lambda: _publications(site.server) >= before + BEHIND, "the copy is far behind", 30)
    site.server.kill()
    shutil.rmtree(aof)
    copy.rename(aof)
    await asyncio.sleep(AWAY)
    await asyncio.to_thread(site.server.start)


async def kill_subscriptions(site: Single) -> None:
    """Again and again, so that it also meets nodes that are filling the gap of the time before."""
    for _ in range(KILLS):
        assert site.server.do("CLIENT", "KILL", "TYPE", "pubsub") > 0
        await asyncio.sleep(KILL_EVERY)


async def overflow_a_buffer(site: Single) -> None:
    """So much at once that Valkey ends the nodes' subscriptions; what it is made of no node can read, and drops."""
    site.server.do("CONFIG", "SET", "client-output-buffer-limit", f"pubsub {BUFFER} 0 0")
    before = _subscriptions(site.server)
    channel = f"carillon:{{{room(0)}}}"
    await asyncio.to_thread(site.server.do, "EVAL", _FLOOD, 1, channel, BURST, ONE_OF_BURST)
    ended = before - _subscriptions(site.server)
    assert ended, "no subscription was ended"
    site.server.do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60")


def _subscriptions(server: Server) -> set[str]:
    """Which connections there are that listen."""
    clients = server.do("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
    return {client.partition(" ")[0] for client in clients}


def _is_master(server: Server) -> bool:
    with suppress(redis.RedisError):  # Sentinels end the connections of whom they promote
        return b"role:master" in server.do("INFO", "replication")
    return False


async def freeze_valkey(site: Single) -> None:
    site.server.freeze()
    await asyncio.sleep(FROZEN)
    site.server.thaw()


# Sentinels


async def fail_over_in_sync(site: Sentinels) -> None:
    await _fail_over(site)


async def fail_over_behind(site: Sentinels) -> None:
    """The replica lacks the last publications, which were confirmed."""
    trio = site.trio
    trio.cut_off()
    await until(lambda: _publications(trio.master) >= _publications(trio.replica) + BEHIND, "it is far behind", 30)
    await _fail_over(site)


def _publications(server: Server) -> int:
    """By the keys that they leave."""
    return len(server.do("KEYS", "*:idem:*"))


async def _fail_over(site: Sentinels) -> None:
    trio = site.trio
    trio.master.kill()
    await until(lambda: _is_master(trio.replica), "the replica is master", 30)


# Cluster


async def move_a_slot(site: Cluster) -> None:
    """With all it holds, while it is written to: some of its keys are here and some there for a while."""
    moved = random.Random(1).choice([room(number) for number in range(50)])
    slot = slot_of(b"{%b}" % moved.encode())
    source = _owner(site, slot)
    target = next(node for node in site.cluster.nodes if node is not source)
    await asyncio.to_thread(_migrate, site, slot, source, target)


def _migrate(site: Cluster, slot: int, source: Server, target: Server) -> None:
    target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", source.do("CLUSTER", "MYID"))
    source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", target.do("CLUSTER", "MYID"))
    moved = 0
    while keys := source.do("CLUSTER", "GETKEYSINSLOT", slot, 100):
        moved += len(keys)
        source.do("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    assert moved > 2, "meta, stream, and publications' keys"
    site.cluster.move(slot, source, target)


async def fail_over_a_shard(site: Cluster) -> None:
    slot = slot_of(b"{%b}" % room(0).encode())
    dying = _owner(site, slot)
    replica = await asyncio.to_thread(site.opened.enter_context, site.cluster.replica_of(dying))
    dying.kill()
    await until(lambda: _is_master(replica), "the replica has taken over", 30)
    await until(lambda: b"cluster_state:ok" in replica.do("CLUSTER", "INFO"), "the cluster is whole", 30)


def _owner(site: Cluster, slot: int) -> Server:
    for first, last, (_, port, *_), *_ in site.cluster.nodes[0].do("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(node for node in site.cluster.nodes if node.port == port)
    raise AssertionError(f"nobody serves slot {slot}")
