"""What the redis broker writes, and that nothing is ever half written (P1 to P6)."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from app.broker.base import Broker, BrokerUnavailable, History
from app.codes import TOO_MANY_REQUESTS, CommandError
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, Pair, hearing, settings_for
from tests.support.proxy import proxy
from tests.support.valkey import Server, server
from tests.support.waiting import until


@pytest.fixture
def settings(valkey: Server) -> Settings:
    return settings_for(valkey.url)


@pytest.fixture
def channel(settings: Settings) -> str:
    """The channel of the room `room`; its keys begin with the same."""
    return settings.key_prefix + "{room}"


def entries(valkey: Server, channel: str) -> list[Any]:
    found: list[Any] = valkey.do("XRANGE", f"{channel}:stream", "-", "+")
    return found


class TestWhatIsWritten:
    async def test_a_message_is_epoch_offset_and_envelope(self, pair: Pair, valkey: Server, channel: str) -> None:
        """P6"""
        broker, _ = pair
        with redis.Redis(port=valkey.port) as other, other.pubsub() as ears:
            ears.subscribe(channel)
            assert (ears.get_message(timeout=5) or {})["type"] == "subscribe"
            position = await broker.publish("room", ENVELOPE + b"kept", history=HISTORY)
            await broker.publish("room", ENVELOPE + b"not kept", history=None)
            await broker.publish("room", ENVELOPE + b"keyed", history=None, idempotency_key="k")
            messages = [(ears.get_message(timeout=5) or {})["data"] for _ in range(3)]
        assert messages == [f"{position.epoch}:1:\x01kept".encode(), b":0:\x01not kept", b":0:\x01keyed"]

    async def test_an_entry_has_the_offset_as_its_id(self, pair: Pair, valkey: Server, channel: str) -> None:
        broker, _ = pair
        await broker.publish("room", ENVELOPE + b"one", history=HISTORY)
        await broker.publish("room", ENVELOPE + b"two", history=HISTORY)
        assert entries(valkey, channel) == [
            [b"0-1", [b"envelope", ENVELOPE + b"one"]],
            [b"0-2", [b"envelope", ENVELOPE + b"two"]],
        ]

    async def test_history_keeps_exactly_its_size(self, pair: Pair, valkey: Server, channel: str) -> None:
        broker, _ = pair
        for _ in range(2 * HISTORY.size):
            await broker.publish("room", ENVELOPE, history=HISTORY)
        assert valkey.do("XLEN", f"{channel}:stream") == HISTORY.size

    async def test_each_key_has_its_life(self, pair: Pair, valkey: Server, channel: str, settings: Settings) -> None:
        """P4, P5"""
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=HISTORY, idempotency_key="k")
        assert HISTORY.ttl - 5 < valkey.do("PTTL", f"{channel}:stream") / 1000 <= HISTORY.ttl
        assert HISTORY.meta_ttl - 5 < valkey.do("PTTL", f"{channel}:meta") / 1000 <= HISTORY.meta_ttl
        kept = valkey.do("PTTL", f"{channel}:idem:k") / 1000
        assert settings.idempotency_ttl - 5 < kept <= settings.idempotency_ttl

    async def test_reading_refreshes_meta_and_nothing_else(self, pair: Pair, valkey: Server, channel: str) -> None:
        """P5: the history counts from its last publication."""
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=HISTORY)
        for key in ("meta", "stream"):
            valkey.do("PEXPIRE", f"{channel}:{key}", 5000)
        await broker.read("room", HISTORY, since=None, limit=1)
        assert valkey.do("PTTL", f"{channel}:meta") > 5000
        assert valkey.do("PTTL", f"{channel}:stream") <= 5000

    async def test_entries_that_no_node_has_written_are_not_read(
        self, pair: Pair, valkey: Server, channel: str
    ) -> None:
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=HISTORY)
        valkey.do("XADD", f"{channel}:stream", "*", "strange", "entry")
        for reverse in (False, True):
            page = await broker.read("room", HISTORY, since=None, limit=10, reverse=reverse)
            assert page.publications == [(1, ENVELOPE)]

    async def test_the_brokers_own_keys_go_soon(self, pair: Pair, valkey: Server, settings: Settings) -> None:
        """They only serve repetitions within `broker_timeout`."""
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=HISTORY)
        (own,) = valkey.do("KEYS", settings.key_prefix + "{room}:own:*")
        assert settings.broker_timeout * 1000 < valkey.do("PTTL", own) <= settings.broker_timeout * 2000

    async def test_without_history_and_key_nothing_is_written(
        self, pair: Pair, valkey: Server, settings: Settings
    ) -> None:
        """P1"""
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=None)
        assert valkey.do("KEYS", settings.key_prefix + "*") == []

    async def test_offsets_stay_whole_numbers(self, pair: Pair, valkey: Server, channel: str) -> None:
        broker, _ = pair
        await broker.publish("room", ENVELOPE, history=HISTORY)
        valkey.do("HSET", f"{channel}:meta", "offset", str(10**15 - 1))
        assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == 10**15
        assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == 10**15 + 1

    async def test_a_session_counts_for_a_minute(self, pair: Pair, valkey: Server, settings: Settings) -> None:
        broker, _ = pair
        await broker.admit_user("ann", "dead", 1)
        key = settings.key_prefix + "user:ann"
        assert 50 < valkey.do("TTL", key) <= 60
        valkey.do("ZADD", key, 1, "dead")  # as if it had not been refreshed since
        assert await broker.admit_user("ann", "alive", 1)

    async def test_the_list_of_revocations_lives_as_long_as_its_last_entry(
        self, pair: Pair, valkey: Server, settings: Settings
    ) -> None:
        broker, _ = pair
        await broker.revoke(b"long", time.time() + 1000, 10)
        await broker.revoke(b"short", time.time() + 10, 10)
        assert 990 < valkey.do("TTL", settings.key_prefix + "tokens:revoked") <= 1002


class TestNothingHalf:
    """P2"""

    async def test_a_failing_append_leaves_nothing_behind(self, pair: Pair, valkey: Server, channel: str) -> None:
        broker, sink = pair
        await broker.subscribe("room")
        first = await broker.publish("room", ENVELOPE, history=HISTORY)
        valkey.do("RENAME", f"{channel}:stream", f"{channel}:aside")
        valkey.do("SET", f"{channel}:stream", "of the wrong type")
        with pytest.raises(BrokerUnavailable, match=r"refused \(WRONGTYPE\)"):
            await broker.publish("room", ENVELOPE + b"lost", history=HISTORY, idempotency_key="k")
        with pytest.raises(BrokerUnavailable, match=r"refused \(WRONGTYPE\)"):
            await broker.read("room", HISTORY, since=None, limit=10)
        assert valkey.do("EXISTS", f"{channel}:idem:k") == 0
        valkey.do("RENAME", f"{channel}:aside", f"{channel}:stream")
        second = await broker.publish("room", ENVELOPE + b"kept", history=HISTORY, idempotency_key="k")
        assert (second.epoch, second.offset) == (first.epoch, 2)
        await until(lambda: len(sink.publications) == 2, "heard")
        assert sink.heard("room") == [ENVELOPE, ENVELOPE + b"kept"]

    async def test_meta_gone_and_the_stream_kept_begins_a_new_epoch(
        self, pair: Pair, valkey: Server, channel: str
    ) -> None:
        broker, _ = pair
        for _ in range(3):
            old = await broker.publish("room", ENVELOPE, history=HISTORY)
        valkey.do("DEL", f"{channel}:meta")
        new = await broker.publish("room", ENVELOPE + b"new", history=HISTORY)
        assert new.epoch != old.epoch
        assert new.offset == 1
        assert [entry for _, (_, entry) in entries(valkey, channel)] == [ENVELOPE + b"new"]

    async def test_the_stream_gone_keeps_the_epoch(self, pair: Pair, valkey: Server, channel: str) -> None:
        broker, _ = pair
        first = await broker.publish("room", ENVELOPE, history=HISTORY)
        valkey.do("DEL", f"{channel}:stream")
        second = await broker.publish("room", ENVELOPE, history=HISTORY)
        assert (second.epoch, second.offset) == (first.epoch, 2)

    async def test_no_memory_is_tried_again_until_there_is_some(self, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            async with hearing(settings_for(own.url)) as (broker, _):
                await broker.publish("room", ENVELOPE, history=HISTORY)
                own.do("CONFIG", "SET", "maxmemory", 1)
                publishing = asyncio.create_task(broker.publish("room", ENVELOPE, history=HISTORY))
                reading = asyncio.create_task(broker.read("room", HISTORY, since=None, limit=10))
                await until(lambda: broker.stats.retries >= 3, "both refused")
                own.do("CONFIG", "SET", "maxmemory", 0)
                assert (await publishing).offset == 2
                assert (await reading).publications[0] == (1, ENVELOPE)

    async def test_no_memory_for_long_is_an_error(self, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            async with hearing(settings_for(own.url, broker_timeout=0.3)) as (broker, _):
                own.do("CONFIG", "SET", "maxmemory", 1)
                with pytest.raises(BrokerUnavailable, match=r"refused \(OOM\)"):
                    await broker.read("room", HISTORY, since=None, limit=10)
                for key in (None, "k"):
                    for history in (HISTORY, None):
                        if key or history:
                            with pytest.raises(BrokerUnavailable, match=r"refused \(OOM\)"):
                                await broker.publish("room", ENVELOPE, history=history, idempotency_key=key)
                own.do("CONFIG", "SET", "maxmemory", 0)
                assert (await broker.publish("room", ENVELOPE, history=HISTORY, idempotency_key="k")).offset == 1

    async def test_a_forgotten_script_is_sent_again(self, pair: Pair, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            async with hearing(settings_for(own.url)) as (broker, _):
                for expected in (1, 2):
                    own.do("SCRIPT", "FLUSH")
                    assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == expected
                    own.do("SCRIPT", "FLUSH")
                    assert (await broker.read("room", HISTORY, since=None, limit=0)).top.offset == expected


class TestOnce:
    """P4: an answer that got lost."""

    async def test_a_lost_answer_is_asked_for_again(self, valkey: Server) -> None:
        async with proxy(valkey.port) as between:
            settings = settings_for(f"redis://127.0.0.1:{between.port}")
            async with hearing(settings) as (broker, _):
                stream = settings.key_prefix + "{room}:stream"
                between.mute()
                publishing = asyncio.create_task(broker.publish("room", ENVELOPE, history=HISTORY))
                await until(lambda: valkey.do("XLEN", stream) == 1, "published")
                assert not publishing.done()
                between.cut()
                assert (await publishing).offset == 1
                assert broker.stats.retries == 1
                assert valkey.do("XLEN", stream) == 1

    async def test_without_history_and_key_it_is_not(self, valkey: Server) -> None:
        """P1: at most once."""
        async with proxy(valkey.port) as between:
            settings = settings_for(f"redis://127.0.0.1:{between.port}")
            async with hearing(settings) as (broker, _):
                between.mute()
                publishing = asyncio.create_task(broker.publish("room", ENVELOPE, history=None))
                await asyncio.sleep(0)  # it is sent with the end of this tick
                await asyncio.sleep(0)
                between.cut()
                with pytest.raises(BrokerUnavailable, match="outcome unknown"):
                    await publishing

    async def test_an_answer_that_never_comes_is_an_unknown_outcome(self, valkey: Server) -> None:
        async with proxy(valkey.port) as between:
            settings = settings_for(f"redis://127.0.0.1:{between.port}", broker_timeout=0.5)
            async with hearing(settings) as (broker, _):
                between.mute()
                began = asyncio.get_running_loop().time()
                with pytest.raises(BrokerUnavailable, match="outcome unknown"):
                    await broker.publish("room", ENVELOPE, history=HISTORY)
                assert asyncio.get_running_loop().time() - began < 10

    async def test_the_bytes_under_way_are_bounded(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        broker, _ = pair
        monkeypatch.setattr("app.broker.redis.MAX_PENDING_BYTES", 1000)
        asked = [broker.publish("room", ENVELOPE * 400, history=HISTORY) for _ in range(4)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer.error for answer in answers if isinstance(answer, CommandError)]
        assert refused == [TOO_MANY_REQUESTS] * 2
        assert (await broker.publish("room", ENVELOPE * 900, history=HISTORY)).offset == 3


class TestRollback:
    """P3: offsets that a server hands out again must not look like the old ones."""

    HISTORY = History(size=100, ttl=60, meta_ttl=3600)

    async def publish(self, broker: Broker, times: int) -> Any:
        return [await broker.publish("room", ENVELOPE, history=self.HISTORY) for _ in range(times)][-1]

    async def test_a_restart_from_an_older_snapshot_begins_a_new_epoch(self, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            settings = settings_for(own.url)
            async with hearing(settings) as (broker, _):
                await self.publish(broker, 3)
                own.do("SAVE")
                old = await self.publish(broker, 2)
                own.kill()
                own.start()
                assert int(own.do("HGET", settings.key_prefix + "{room}:meta", "offset")) == 3
                new = await self.publish(broker, 1)
                assert new.epoch != old.epoch
                assert new.offset == 1
                assert own.do("XLEN", settings.key_prefix + "{room}:stream") == 1

    async def test_a_restart_with_nothing_begins_a_new_epoch(self, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            async with hearing(settings_for(own.url)) as (broker, _):
                old = await self.publish(broker, 2)
                own.kill()
                own.start()
                new = (await broker.read("room", self.HISTORY, since=None, limit=0)).top
                assert new.epoch != old.epoch
                assert new.offset == 0

    async def test_what_an_older_snapshot_has_brought_back_is_not_read(self, tmp_path: Path) -> None:
        with server(tmp_path) as own:
            async with hearing(settings_for(own.url)) as (broker, _):
                old = await self.publish(broker, 3)
                own.do("SAVE")
                own.kill()
                own.start()
                page = await broker.read("room", self.HISTORY, since=1, limit=10)
                assert page.top.epoch != old.epoch
                assert (page.top.offset, page.publications) == (0, [])

    @pytest.mark.parametrize(("trusted", "offset"), [(True, 3), (False, 1)])
    async def test_a_restart_from_aof_goes_on_only_where_it_is_trusted(
        self, tmp_path: Path, trusted: bool, offset: int
    ) -> None:
        with server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as own:
            async with hearing(settings_for(own.url, broker_trust_restart=trusted)) as (broker, _):
                old = await self.publish(broker, 2)
                own.kill()
                own.start()
                new = await self.publish(broker, 1)
                assert new.offset == offset
                assert (new.epoch == old.epoch) is trusted


async def test_what_no_node_has_written_is_left_out(pair: Pair, valkey: Server, channel: str) -> None:
    broker, sink = pair
    await broker.subscribe("room")
    for strange in ("", "a", "a:b", "a:b:c", ":", "\x00"):
        valkey.do("PUBLISH", channel, strange)
    await broker.publish("room", ENVELOPE, history=None)
    await until(lambda: sink.publications, "heard")
    assert sink.heard("room") == [ENVELOPE]
    assert broker.stats.malformed == 6


async def test_a_sink_that_fails_does_not_end_the_connection(pair: Pair) -> None:
    broker, sink = pair
    await broker.subscribe("room")
    sink.fail_next = True
    await broker.publish("room", ENVELOPE + b"first", history=None)
    await broker.publish("room", ENVELOPE + b"second", history=None)
    await until(lambda: sink.publications, "heard")
    assert sink.heard("room") == [ENVELOPE + b"second"]
    assert sink.events == []
