"""What the redis broker does while servers and connections fail: it knows it, says it, and hears again."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.broker.base import Broker, BrokerUnavailable
from app.settings import Settings
from tests.support.brokers import ENVELOPE, HISTORY, Recorder, hearing, hears, settings_for, started
from tests.support.proxy import proxy
from tests.support.valkey import Server, server
from tests.support.waiting import until

QUICK = {"broker_echo_interval": 0.1, "broker_deaf_after": 0.5}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server to break."""
    with server(tmp_path) as running:
        yield running


@pytest.fixture
def settings(own: Server) -> Settings:
    return settings_for(own.url)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[tuple[Broker, Recorder]]:
    async with hearing(settings) as made:
        yield made


async def hears_room(broker: Broker, sink: Recorder, room: str) -> None:
    """Publishes once more and waits until it is heard."""
    before = len(sink.publications)
    await broker.publish(room, ENVELOPE, history=HISTORY)
    await until(lambda: len(sink.publications) > before, f"{room} is heard")


async def test_a_killed_server_is_heard_again_when_it_is_back(
    own: Server, settings: Settings, pair: tuple[Broker, Recorder]
) -> None:
    broker, sink = pair
    await asyncio.gather(*(broker.subscribe(room) for room in ("a", "b", "left")))
    await broker.unsubscribe("left")
    own.kill()
    await until(lambda: sink.events == ["lost"], "the loss is told")
    assert not broker.connected
    own.start()
    await until(lambda: hears(broker, settings), "it hears again", timeout=5)
    assert sink.events == ["lost", ["a", "b"]]
    await hears_room(broker, sink, "a")
    assert broker.stats.reconnects == 2
    assert broker.stats.resubscribed == 2


async def test_cut_subscribers_subscribe_again(own: Server, pair: tuple[Broker, Recorder]) -> None:
    """What `client-output-buffer-limit pubsub` does to a slow one."""
    broker, sink = pair
    rooms = sorted(f"room{n}" for n in range(1200))
    await asyncio.gather(*(broker.subscribe(room) for room in rooms))
    own.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(sink.events) == 2, "told", timeout=5)
    assert sink.events == ["lost", rooms]
    await hears_room(broker, sink, "room7")


async def test_a_loss_without_rooms_is_told_too(own: Server, pair: tuple[Broker, Recorder]) -> None:
    own.do("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: pair[1].events == ["lost", []], "told", timeout=5)


async def test_a_frozen_server_makes_the_node_deaf_until_it_thaws(own: Server) -> None:
    settings = settings_for(own.url, **QUICK)
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        own.freeze()
        try:
            await until(lambda: broker.echo_age > settings.broker_deaf_after, "deaf")
            await until(lambda: not broker.connected, "the connections are given up")
            assert broker.deaf_for == 0, "the trouble is the server's"
        finally:
            own.thaw()
        await until(lambda: hears(broker, settings), "it hears again", timeout=5)
        assert sink.events[0] == "lost"
        assert sink.events[-1] == ["room"]
        await hears_room(broker, sink, "room")


async def test_a_half_dead_connection_is_noticed_by_its_silence(own: Server) -> None:
    """R2: nothing was closed, and nothing comes any more."""
    async with proxy(own.port) as between:
        settings = settings_for(f"redis://127.0.0.1:{between.port}", **QUICK)
        async with hearing(settings) as (broker, sink):
            await broker.subscribe("room")
            between.mute()
            await until(lambda: sink.events == ["lost"], "given up", timeout=2)
            between.cut()
            await until(lambda: sink.events == ["lost", ["room"]], "subscribed again", timeout=5)
            await hears_room(broker, sink, "room")


async def test_a_node_that_is_answered_and_told_nothing_knows_that_it_is_deaf(own: Server) -> None:
    """N1: whatever new connections it makes."""
    async with proxy(own.port) as between:
        settings = settings_for(f"redis://127.0.0.1:{between.port}", **QUICK)
        async with hearing(settings) as (broker, _):
            assert broker.deaf_for < settings.broker_deaf_after
            between.deafen()
            await until(lambda: broker.deaf_for > 3 * settings.broker_deaf_after, "deaf")
            assert broker.echo_age > 3 * settings.broker_deaf_after
            await broker.publish("room", ENVELOPE, history=HISTORY)
            own.kill()
            await until(lambda: broker.deaf_for == 0, "not deaf, but cut off")


async def test_publishes_wait_for_the_server_within_their_time(own: Server, pair: tuple[Broker, Recorder]) -> None:
    broker, _ = pair
    own.kill()
    await until(lambda: not broker.connected, "away")
    publishing = [asyncio.create_task(broker.publish("room", ENVELOPE, history=history)) for history in (HISTORY, None)]
    await asyncio.sleep(0)
    own.start()
    kept, plain = await asyncio.gather(*publishing)
    assert (kept.offset, plain.offset) == (1, 0)


async def test_a_read_whose_answer_got_lost_is_asked_again(own: Server) -> None:
    async with proxy(own.port) as between:
        settings = settings_for(f"redis://127.0.0.1:{between.port}")
        async with hearing(settings) as (broker, _):
            await broker.publish("room", ENVELOPE, history=HISTORY)
            between.mute()
            reading = asyncio.create_task(broker.read("room", HISTORY, since=None, limit=10))
            await asyncio.sleep(0)  # it is sent with the end of this tick
            await asyncio.sleep(0)
            between.cut()
            assert (await reading).publications == [(1, ENVELOPE)]
            assert broker.stats.retries >= 1


async def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    """LOADING"""
    with server(tmp_path, "--enable-debug-command", "local") as own:
        async with hearing(settings_for(own.url)) as (broker, _):
            top = await broker.publish("room", ENVELOPE, history=HISTORY)
            for number in range(100):
                own.do("SET", f"filler{number}", "x" * 1000)
            own.do("CONFIG", "SET", "loading-process-events-interval-bytes", 1024)
            own.do("CONFIG", "SET", "key-load-delay", 3000)  # microseconds
            loading = asyncio.create_task(asyncio.to_thread(own.do, "DEBUG", "RELOAD"))
            await until(lambda: b"loading:1" in own.do("INFO", "persistence"), "it loads")
            page, last = await asyncio.gather(
                broker.read("room", HISTORY, since=None, limit=10), broker.publish("room", ENVELOPE, history=HISTORY)
            )
            await loading
            assert broker.stats.retries >= 2
            assert page.publications[0] == (1, ENVELOPE)
            assert (last.epoch, last.offset) == (top.epoch, 2)


async def test_it_starts_while_the_server_is_away(own: Server) -> None:
    """N2"""
    settings = settings_for(own.url, broker_timeout=0.2)
    own.kill()
    async with started(settings) as (broker, sink):
        assert not broker.connected
        assert broker.echo_age == math.inf
        calls: dict[str, Any] = {
            "publish": broker.publish("room", ENVELOPE, history=HISTORY),
            "announce": broker.publish("room", ENVELOPE, history=None),
            "subscribe": broker.subscribe("room"),
            "read": broker.read("room", HISTORY, since=None, limit=10),
            "control": broker.send_control(b""),
            "put": broker.put("key", b"value", 1),
            "take": broker.take("key"),
            "admit": broker.admit_user("ann", "s", 1),
            "revoke": broker.revoke(b"entry", 1e10, 10),
            "revoked": broker.revoked(),
            "refresh": broker.refresh_users([("ann", "s")]),
        }
        answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        assert [type(answer) for answer in answers] == [BrokerUnavailable] * len(calls)
        await broker.dismiss_user("ann", "s")
        await broker.unsubscribe("room")
        own.start()
        await until(lambda: hears(broker, settings), "it hears", timeout=5)
        assert sink.events == []


async def test_a_subscription_waits_for_the_server(own: Server, settings: Settings) -> None:
    own.kill()
    async with started(settings) as (broker, sink):
        subscribing = asyncio.create_task(broker.subscribe("room"))
        await asyncio.sleep(0)
        own.start()
        await subscribing
        await hears_room(broker, sink, "room")
        assert sink.events == []


async def test_a_subscription_that_was_given_up_is_none(own: Server) -> None:
    settings = settings_for(own.url, broker_timeout=0.2)
    async with hearing(settings) as (broker, _):
        own.freeze()
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.subscribe("room")
        finally:
            own.thaw()
        await until(lambda: hears(broker, settings), "it hears")
        channel = settings.key_prefix + "{room}"
        await until(lambda: own.do("PUBSUB", "NUMSUB", channel) == [channel.encode(), 0], "nobody subscribed")


async def test_a_replica_is_left_for_the_primary(own: Server, pair: tuple[Broker, Recorder]) -> None:
    """READONLY is over in a moment."""
    broker, _ = pair
    own.do("REPLICAOF", "127.0.0.1", 1)
    publishing = asyncio.create_task(broker.publish("room", ENVELOPE, history=HISTORY))
    await until(lambda: broker.stats.retries >= 1, "refused")
    own.do("REPLICAOF", "NO", "ONE")
    assert (await publishing).offset == 1


async def test_a_server_that_closes_idle_clients_does_no_harm(own: Server) -> None:
    """Redis' `timeout`: the canary is what keeps connections busy."""
    settings = settings_for(own.url, broker_echo_interval=0.2, broker_deaf_after=1)
    own.do("CONFIG", "SET", "timeout", 1)
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        with socket.create_connection(("127.0.0.1", own.port)) as idle:
            idle.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(idle, 1) == b""  # the server has closed it
        assert sink.events == []
        assert broker.stats.reconnects == 0
        await hears_room(broker, sink, "room")


class TestPassword:
    SECRET = "hunter2-with-%s"

    @pytest.fixture
    def guarded(self, tmp_path: Path) -> Iterator[Server]:
        with server(tmp_path, password=self.SECRET) as running:
            yield running

    async def test_the_right_one_opens(self, guarded: Server) -> None:
        async with hearing(settings_for(f"redis://:hunter2-with-%25s@127.0.0.1:{guarded.port}")) as (broker, _):
            assert (await broker.publish("room", ENVELOPE, history=HISTORY)).offset == 1

    @pytest.mark.parametrize("login", [":wrong-secret@", "ann:wrong-secret@", ""])
    async def test_a_wrong_one_leaves_the_node_unready_and_is_not_logged(self, guarded: Server, login: str) -> None:
        with capture_logs() as logs:
            async with started(settings_for(f"redis://{login}127.0.0.1:{guarded.port}")) as (broker, _):
                await until(lambda: logs, "a log line")
                assert not broker.connected
        assert logs[0]["event"] == "broker.unreachable"
        assert logs[0]["reason"].split()[0] in ("WRONGPASS", "NOAUTH")
        assert "wrong-secret" not in repr(logs)

    async def test_a_server_that_repeats_it_does_not_bring_it_into_the_log(self, tmp_path: Path) -> None:
        with server(tmp_path, "--rename-command", "AUTH", "LOGIN") as own, capture_logs() as logs:
            async with started(settings_for(f"redis://ann:the-secret@127.0.0.1:{own.port}")):
                await until(lambda: logs, "a log line")
        assert logs[0]["event"] == "broker.unreachable"
        assert "the-secret" not in repr(logs)


async def test_losses_are_logged_once_each(own: Server, pair: tuple[Broker, Recorder]) -> None:
    _, sink = pair
    with capture_logs() as logs:
        own.do("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: len(sink.events) == 2, "told")
    assert [line["event"] for line in logs] == ["broker.lost", "broker.restored"]


async def test_a_server_that_comes_late_is_logged_when_it_is_there(own: Server) -> None:
    """Else the last line of a pod that is ready says that it is not."""
    own.kill()
    with capture_logs() as logs:
        async with started(settings_for(own.url)) as (broker, _):
            await until(lambda: len({line["link"] for line in logs}) == 2, "both connections have failed")
            own.start()
            await until(lambda: broker.connected, "it is connected", timeout=5)
            reachable = [line for line in logs if line["event"] == "broker.reachable"]
    assert sorted(line["link"] for line in reachable) == ["commands", "subscriber"]
    assert {line["log_level"] for line in reachable} == {"info"}
    assert logs[-1] in reachable


async def test_a_node_holds_two_connections_and_leaves_none(own: Server, settings: Settings) -> None:
    before = asyncio.all_tasks()
    async with hearing(settings, "pod-1:w2") as (broker, _):
        await asyncio.gather(*(broker.subscribe(f"room{n}") for n in range(20)))
        await asyncio.gather(*(broker.publish(f"room{n}", ENVELOPE, history=HISTORY) for n in range(20)))
        names = [line for line in own.do("CLIENT", "LIST").splitlines() if b"name=carillon:pod-1:w2" in line]
        assert len(names) == 2
        assert len(own.do("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) == 1
    await until(lambda: b"carillon:" not in own.do("CLIENT", "LIST"), "no connection is left")
    assert asyncio.all_tasks() == before
