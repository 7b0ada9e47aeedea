"""P3: a server whose data went back hands out offsets again, with other data. No node takes them for the old ones."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.broker.base import Broker, History, Position
from app.settings import Settings
from tests.support.brokers import ENVELOPE, Recorder, hearing, settings_for
from tests.support.in_process import Node, Peer
from tests.support.proxy import proxy
from tests.support.valkey import Server, Trio, server
from tests.support.waiting import until

HISTORY = History(size=1000, ttl=60, meta_ttl=3600)


async def publish(broker: Broker, *texts: str, key: str | None = None) -> Position:
    """The position of the last one."""
    for text in texts:
        envelope = ENVELOPE + text.encode()
        position = await broker.publish("room", envelope, history=HISTORY, idempotency_key=key)
    return position


async def read(broker: Broker, since: int | None = None) -> tuple[Position, list[tuple[int, str]]]:
    page = await broker.read("room", HISTORY, since=since, limit=1000)
    return page.top, [(offset, envelope[len(ENVELOPE) :].decode()) for offset, envelope in page.publications]


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def reused(*sinks: Recorder) -> list[Position]:
    """Positions that came with different data."""
    seen: dict[Position, bytes] = {}
    heard = [(position, envelope) for sink in sinks for _, position, envelope in sink.publications]
    return [position for position, envelope in heard if seen.setdefault(position, envelope) != envelope]


class TestUnderTheSameReplicationId:
    """What a virtual machine does that is set back to a snapshot, or an administrator who restores keys: nothing was
    restarted, no connection was lost, and the replication id says that all is well."""

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with server(tmp_path_factory.mktemp("rollback"), "--enable-debug-command", "local") as running:
            yield running

    @pytest.fixture
    def settings(self, own: Server) -> Settings:
        return settings_for(own.url, broker_backoff_max=0.05)

    @pytest.fixture
    async def member(self, settings: Settings) -> AsyncIterator[tuple[Broker, Recorder]]:
        """A node with a member in the room."""
        async with hearing(settings, "member") as (broker, sink):
            await broker.subscribe("room")
            yield broker, sink

    @pytest.fixture
    async def stranger(self, settings: Settings) -> AsyncIterator[Broker]:
        """A node that has never seen the room."""
        async with hearing(settings, "stranger") as (broker, _):
            yield broker

    @staticmethod
    async def roll_back(own: Server, broker: Broker) -> Position:
        """The node has seen five publications, the server has three; the position of the fifth."""
        await publish(broker, *numbers(1, 3))
        own.do("SAVE")
        last = await publish(broker, *numbers(4, 5))
        own.do("DEBUG", "RELOAD", "NOSAVE")
        return last

    @staticmethod
    async def reconnect(own: Server, broker: Broker, sink: Recorder) -> None:
        sink.events.clear()
        own.do("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: sink.events == ["lost", ["room"]], "subscribed again")

    async def test_the_nodes_next_publish_begins_a_new_epoch(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker
    ) -> None:
        broker, sink = member
        old = await self.roll_back(own, broker)
        new = await publish(broker, "new")
        assert new.epoch != old.epoch
        assert new.offset == 1
        assert await read(stranger) == (new, [(1, "new")])
        await until(lambda: sink.publications[-1][1] == new, "heard")
        assert await publish(broker, "next") == Position(new.epoch, 2)

    async def test_the_nodes_next_read_begins_a_new_epoch(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker
    ) -> None:
        broker, _ = member
        old = await self.roll_back(own, broker)
        top, publications = await read(broker, since=old.offset)
        assert top.epoch != old.epoch
        assert (top.offset, publications) == (0, [])
        assert await publish(stranger, "new") == Position(top.epoch, 1)

    async def test_a_node_without_members_knows_what_it_has_published(self, own: Server, stranger: Broker) -> None:
        old = await self.roll_back(own, stranger)
        assert (await publish(stranger, "new")).epoch != old.epoch

    async def test_a_node_knows_what_it_has_only_heard(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker
    ) -> None:
        broker, sink = member
        old = await self.roll_back(own, stranger)
        await until(lambda: len(sink.publications) == 5, "heard")
        assert (await publish(broker, "new")).epoch != old.epoch

    async def test_a_node_knows_what_it_has_only_read(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker, settings: Settings
    ) -> None:
        async with hearing(settings, "reader") as (reader, _):
            await publish(stranger, *numbers(1, 3))
            own.do("SAVE")
            old = await publish(stranger, *numbers(4, 5))
            await read(reader)
            own.do("DEBUG", "RELOAD", "NOSAVE")
            assert (await publish(reader, "new")).epoch != old.epoch

    @pytest.mark.parametrize("others", [2, 4])
    async def test_offsets_that_others_use_again_are_heard(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker, others: int
    ) -> None:
        """Another publication at a position that the node knows: its members' repair ends the epoch."""
        broker, sink = member
        old = await self.roll_back(own, broker)
        await publish(stranger, *numbers(104, 103 + others))
        await until(lambda: ["room"] in sink.events, "a repair is asked for")
        top, publications = await read(broker, since=old.offset)
        assert top.epoch != old.epoch
        assert publications == []
        assert old not in reused(sink)

    @pytest.mark.parametrize("others", [2, 4])
    @pytest.mark.parametrize("publishes_itself", [False, True])
    async def test_offsets_that_others_have_used_again_are_found_after_a_reconnect(
        self, own: Server, settings: Settings, stranger: Broker, others: int, publishes_itself: bool
    ) -> None:
        """The top is not below what the node has seen, and it did not hear how that came: the data there are others."""
        async with proxy(own.port) as between:
            behind = settings_for(f"redis://127.0.0.1:{between.port}", key_prefix=settings.key_prefix)
            async with hearing(behind) as (broker, sink):
                await broker.subscribe("room")
                old = await self.roll_back(own, broker)
                between.mute()
                assert await publish(stranger, *numbers(104, 103 + others)) == Position(old.epoch, 3 + others)
                between.cut()
                if publishes_itself:
                    await publish(broker, "in between")
                await until(lambda: sink.events == ["lost", ["room"]], "subscribed again")
                top, publications = await read(broker, since=old.offset)
                assert top.epoch != old.epoch
                assert publications == []

    async def test_without_a_rollback_the_epoch_stays(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker
    ) -> None:
        broker, sink = member
        first = await publish(broker, *numbers(1, 3))
        for number in (4, 5, 6):
            await self.reconnect(own, broker, sink)
            if number == 5:
                await publish(stranger, str(number))
            else:
                await publish(broker, str(number))
            assert await read(broker, since=number - 1) == (Position(first.epoch, number), [(number, str(number))])

    async def test_a_repetition_with_another_envelope_is_no_rollback(
        self, own: Server, member: tuple[Broker, Recorder], stranger: Broker
    ) -> None:
        """P4: only the data are compared, and a client that comes back has another session."""
        broker, sink = member
        for node, sender in ((stranger, b"first"), (broker, b"second")):
            top = await node.publish("room", sender, history=HISTORY, idempotency_key="k", data=b"data")
        await self.reconnect(own, broker, sink)
        page = await broker.read("room", HISTORY, since=None, limit=10)
        assert (page.top, page.publications) == (top, [(1, b"first")])

    async def test_members_are_told_before_an_offset_comes_again(self, own: Server, settings: Settings) -> None:
        options = {"namespaces": {"chat": {"history_size": 100}}, "key_prefix": settings.key_prefix}
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(Node(redis_url=own.url, **options))
            other = await stack.enter_async_context(Node(redis_url=own.url, **options))
            ann = await node.connect("ann", "chat:x")
            for number in range(1, 4):
                await node.gateway.publish("chat:x", number)
            own.do("SAVE")
            for number in range(4, 6):
                await node.gateway.publish("chat:x", number)
            await until(lambda: ann.data("chat:x") == [1, 2, 3, 4, 5], "heard")
            own.do("DEBUG", "RELOAD", "NOSAVE")
            # One that nobody here takes for the fourth, as it is a repetition to this node, and one of its own.
            await other.gateway.publish("chat:x", "lost to the epoch's end")
            new = await node.gateway.publish("chat:x", "new")
            await until(lambda: ann.data("chat:x")[-1] == "new", "heard")
            assert [event["type"] for event in ann.events[-2:]] == ["insufficient", "message"]
            assert ann.events[-1]["offset"] == new.offset == 1
            bob = await node.connect("bob")
            reply = await self.come_back(bob, new.epoch, 0)
            assert (reply["recovered"], bob.data("chat:x")) == (True, ["new"])

    async def test_the_position_check_finds_what_a_quiet_member_would_not(
        self, own: Server, settings: Settings
    ) -> None:
        """R2: another node publishes at an offset that this one takes for a repetition."""
        options = {"namespaces": {"chat": {"history_size": 100}}, "key_prefix": settings.key_prefix}
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(Node(redis_url=own.url, position_check=0.1, **options))
            other = await stack.enter_async_context(Node(redis_url=own.url, **options))
            ann = await node.connect("ann", "chat:x")
            await node.gateway.publish("chat:x", 1)
            own.do("SAVE")
            for number in (2, 3):
                await node.gateway.publish("chat:x", number)
            await until(lambda: ann.data("chat:x") == [1, 2, 3], "heard")
            own.do("DEBUG", "RELOAD", "NOSAVE")
            await other.gateway.publish("chat:x", "not heard")
            await until(lambda: ann.of_type("insufficient"), "told")
            await other.gateway.publish("chat:x", "heard")
            await until(lambda: ann.data("chat:x")[3:] == ["heard"], "it goes on")

    @staticmethod
    async def come_back(peer: Peer, epoch: str, offset: int) -> dict[str, object]:
        return await peer.ask("subscribe", room="chat:x", since={"epoch": epoch, "offset": offset})


async def test_a_trusted_server_that_lost_its_last_second_begins_a_new_epoch(tmp_path: Path) -> None:
    """`appendfsync everysec` and a power cut: what `broker_trust_restart` cannot promise, the nodes find out."""
    with server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as own:
        settings = settings_for(own.url, broker_trust_restart=True)
        async with hearing(settings) as (broker, sink):
            await broker.subscribe("room")
            await publish(broker, *numbers(1, 3))
            files = tmp_path / f"aof-{own.port}"
            shutil.copytree(files, tmp_path / "older")
            old = await publish(broker, *numbers(4, 5))
            own.kill()
            shutil.rmtree(files)
            (tmp_path / "older").rename(files)
            own.start()
            assert own.do("HGET", settings.key_prefix + "{room}:meta", "offset") == b"3"
            await until(lambda: sink.events == ["lost", ["room"]], "subscribed again")
            new = await publish(broker, "new")
            assert new.epoch != old.epoch
            assert new.offset == 1
            await until(lambda: sink.publications[-1][1] == new, "heard")
            assert reused(sink) == []


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_replica_that_was_cut_off_begins_a_new_epoch(tmp_path: Path, trusted: bool) -> None:
    """100 publications are lost. With `broker_trust_restart`, where it does not belong, only the nodes know."""
    with Trio(tmp_path).running() as own:
        settings = settings_for(own.url, broker_timeout=20, broker_trust_restart=trusted)
        async with hearing(settings) as (broker, sink):
            await broker.subscribe("room")
            await publish(broker, *numbers(1, 3))
            meta = settings.key_prefix + "{room}:meta"
            await until(lambda: own.replica.do("HGET", meta, "offset") == b"3", "the replica is in sync")
            own.master.cut_off(own.replica)
            old = await publish(broker, *numbers(4, 103))
            assert old.offset == 103
            own.master.kill()
            own.replica.thaw()
            assert own.replica.do("HGET", meta, "offset") == b"3"
            # Sent at once, so that it is among the first that the new master carries out.
            publishing = asyncio.create_task(publish(broker, *numbers(204, 206)))
            await until(lambda: sink.events == ["lost", ["room"]], "subscribed at the new master", timeout=30)
            new = await publishing
            assert new.epoch != old.epoch
            assert new.offset == 3
            top, publications = await read(broker, since=0)
            assert (top, [text for _, text in publications]) == (new, numbers(204, 206))
            assert reused(sink) == []
