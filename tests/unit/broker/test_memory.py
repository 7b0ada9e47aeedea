"""The memory broker's own: what it keeps is bounded by time."""

import asyncio

from app.broker.base import History, Page
from app.broker.memory import MemoryBroker
from tests.support.brokers import Recorder, settings_for


async def test_expired_keys_are_dropped_as_others_come() -> None:
    broker = MemoryBroker(settings_for("memory://", idempotency_ttl=0.01))
    await broker.start(Recorder())
    short = History(size=1, ttl=0.005, meta_ttl=0.01)
    for number in range(100):
        await broker.publish(f"room{number}", b"\x01", history=short, idempotency_key="key")
        await broker.put(f"ticket{number}", b"value", 0.01)
    await asyncio.sleep(0.02)  # their time, nothing that could be waited for
    await broker.publish("last", b"\x01", history=short, idempotency_key="key")
    await broker.put("last", b"value", 0.01)
    kept = (broker._positions, broker._histories, broker._results, broker._kept)
    assert [len(entries._entries) for entries in kept] == [1, 1, 1, 1]


async def test_a_publication_gives_the_whole_history_new_life_and_a_read_only_the_epoch() -> None:
    """P5, as the redis broker's keys show it."""
    broker = MemoryBroker(settings_for("memory://"))
    short, long = History(size=9, ttl=0.02, meta_ttl=0.03), History(size=9, ttl=60, meta_ttl=3600)
    first = await broker.publish("renewed", b"\x01", history=short)
    await broker.publish("renewed", b"\x01", history=long)
    read = await broker.publish("read", b"\x01", history=short)
    assert (await broker.read("read", long, since=None, limit=9)).publications
    await asyncio.sleep(0.04)  # their time, nothing that could be waited for
    renewed = await broker.read("renewed", long, since=None, limit=9)
    assert renewed.top.epoch == first.epoch
    assert [offset for offset, _ in renewed.publications] == [1, 2]
    assert await broker.read("read", long, since=None, limit=9) == Page(read, [])


async def test_nothing_is_left_of_users_who_left() -> None:
    broker = MemoryBroker(settings_for("memory://"))
    assert await broker.admit_user("ann", "s", 1)
    await broker.dismiss_user("ann", "s")
    await broker.dismiss_user("nobody", "s")
    assert broker._users == {}
