"""A server that answers errors: the publisher is told with error 100, nothing is half done, and the node goes on."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.broker import commands
from app.broker.base import Broker, BrokerUnavailable, History, Page, Position
from app.codes import INTERNAL
from app.settings import Settings
from app.telemetry.logs import Limited
from tests.support.brokers import ENVELOPE, HISTORY, Recorder, hearing, hears, settings_for
from tests.support.in_process import Node
from tests.support.valkey import Server, server
from tests.support.waiting import until, wait_until

PASSWORD = "of-the-node"

Act = Callable[[Server, str], object]


@dataclass(frozen=True)
class Trouble:
    """What somebody does to a server, and how it is undone; both get the server and the room's channel."""

    code: str
    make: Act
    mend: Act
    #: Whether reads are refused too.
    reads: bool = True
    #: Whether it is tried again.
    passes: bool = False
    #: Whether the server may have lost something meanwhile, so that a new epoch begins (P3).
    anew: bool = False


def _config(*pairs: str | int) -> Act:
    return lambda own, _: own.do("CONFIG", "SET", *pairs)


def _become_replica_of_nobody(own: Server, _: str) -> None:
    own.do("CONFIG", "SET", "replica-serve-stale-data", "no")
    own.do("REPLICAOF", "127.0.0.1", 1)


def _be_primary_again(own: Server, _: str) -> None:
    own.do("REPLICAOF", "NO", "ONE")
    own.do("CONFIG", "SET", "replica-serve-stale-data", "yes")


def _replace(key: str) -> Act:
    def replace(own: Server, channel: str) -> None:
        own.do("RENAME", f"{channel}:{key}", f"{channel}:aside")
        own.do("SET", f"{channel}:{key}", "somebody else's")

    return replace


def _put_back(key: str) -> Act:
    return lambda own, channel: own.do("RENAME", f"{channel}:aside", f"{channel}:{key}")


def _acl(*rules: str) -> Act:
    return lambda own, _: own.do("ACL", "SETUSER", "node", *rules)


def _deny_room(own: Server, channel: str) -> None:
    prefix = channel.partition("{")[0]
    own.do("ACL", "SETUSER", "node", "resetchannels", f"&{prefix}node:*", f"&{prefix}control")


class Busy:
    """A script of somebody else that does not end; the server answers BUSY to all but a few commands."""

    def make(self, own: Server, _: str) -> None:
        own.do("CONFIG", "SET", "busy-reply-threshold", 10)  # milliseconds
        self._client = socket.create_connection(("127.0.0.1", own.port))
        self._client.sendall(b"EVAL 'while true do end' 0\r\n")
        wait_until(lambda: not own.answers(), "it is busy")

    def mend(self, own: Server, _: str) -> None:
        own.do("SCRIPT", "KILL")
        self._client.close()
        wait_until(own.answers, "it answers")


TROUBLES = {
    "no memory": Trouble("OOM", _config("maxmemory", 1), _config("maxmemory", 0), passes=True),
    "too few replicas": Trouble(
        "NOREPLICAS", _config("min-replicas-to-write", 1), _config("min-replicas-to-write", 0), passes=True
    ),
    "a replica": Trouble(
        "READONLY", lambda own, _: own.do("REPLICAOF", "127.0.0.1", 1), _be_primary_again, passes=True, anew=True
    ),
    # Which of the two reasons is named differs between versions.
    "a replica that lost its primary": Trouble(
        "MASTERDOWN|READONLY", _become_replica_of_nobody, _be_primary_again, passes=True, anew=True
    ),
    "a script that does not end": Trouble("BUSY", (busy := Busy()).make, busy.mend, passes=True),
    "another key as meta": Trouble("WRONGTYPE", _replace("meta"), _put_back("meta")),
    "another key as stream": Trouble("WRONGTYPE", _replace("stream"), _put_back("stream")),
    "no right to scripts": Trouble("NOPERM", _acl("-evalsha", "-eval"), _acl("+evalsha", "+eval")),
    "no right to these keys": Trouble("NOPERM", _acl("resetkeys", "~other*"), _acl("~*")),
    "no right to look who the primary is": Trouble("ERR", _acl("-info"), _acl("+info")),
    "no right to append": Trouble("ERR", _acl("-xadd"), _acl("+xadd"), reads=False),
    "no right to tell": Trouble("NOPERM", _acl("-publish"), _acl("+publish"), reads=False),
    "no right to tell this room": Trouble("NOPERM", _deny_room, _acl("allchannels"), reads=False),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server to break; each test mends it."""
    with server(tmp_path_factory.mktemp("errors")) as running:
        running.do("ACL", "SETUSER", "node", "on", f">{PASSWORD}", "allcommands", "allkeys", "allchannels")
        yield running


@pytest.fixture
def settings(own: Server) -> Settings:
    return settings_for(f"redis://node:{PASSWORD}@127.0.0.1:{own.port}", broker_timeout=0.2, broker_backoff_max=0.05)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[tuple[Broker, Recorder]]:
    async with hearing(settings) as (broker, sink):
        await broker.subscribe("room")
        yield broker, sink


@pytest.fixture
def channel(settings: Settings) -> str:
    return settings.key_prefix + "{room}"


def content(own: Server, channel: str) -> list[Any]:
    """What the room has, and the results that are kept under callers' keys."""
    keys = (f"{channel}:meta", f"{channel}:stream")
    return [*(own.do("DUMP", key) for key in keys), own.do("KEYS", f"{channel}:idem:*")]


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_whoever_publishes_or_reads_is_told_and_nothing_is_half_done(
    own: Server, settings: Settings, pair: tuple[Broker, Recorder], channel: str, trouble: Trouble
) -> None:
    broker, sink = pair
    first = await broker.publish("room", ENVELOPE + b"1", history=HISTORY)
    before = content(own, channel)
    asked: list[Coroutine[Any, Any, object]] = [
        broker.publish("room", ENVELOPE + b"2", history=HISTORY),
        broker.publish("room", ENVELOPE + b"2", history=HISTORY, idempotency_key="k"),
    ]
    if trouble.reads:
        asked += (
            broker.read("room", HISTORY, since=None, limit=10),
            broker.read("room", HISTORY, since=0, limit=1, reverse=True),
        )
    trouble.make(own, channel)
    try:
        answers = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        trouble.mend(own, channel)
    for answer in answers:
        assert isinstance(answer, BrokerUnavailable)
        assert answer.error == INTERNAL
        # What may pass is tried until the time is over, and that may be while an attempt is under way.
        unknown = "|outcome unknown: the broker did not answer" if trouble.passes else ""
        assert re.fullmatch(rf"the broker refused \(({trouble.code})\){unknown}", answer.reason)
    assert content(own, channel) == before
    await until(lambda: hears(broker, settings), "it hears")
    second = await broker.publish("room", ENVELOPE + b"2", history=HISTORY, idempotency_key="k")
    page = await broker.read("room", HISTORY, since=None, limit=10)
    if trouble.anew:
        assert second.epoch != first.epoch
        assert page == Page(second, [(1, ENVELOPE + b"2")])
    else:
        assert second == Position(first.epoch, 2)
        assert page == Page(second, [(1, ENVELOPE + b"1"), (2, ENVELOPE + b"2")])
    await until(lambda: len(sink.publications) == 2, "heard")
    assert sink.heard("room") == [ENVELOPE + b"1", ENVELOPE + b"2"]


async def test_what_is_refused_for_good_is_logged_with_its_reason(
    own: Server, pair: tuple[Broker, Recorder], channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, _ = pair
    monkeypatch.setattr(commands, "log", Limited(commands.logs.get("broker")))
    own.do("SET", f"{channel}:meta", "somebody else's")
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await broker.publish("room", ENVELOPE, history=HISTORY)
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("broker.refused", "error")
    assert line["reason"].startswith("WRONGTYPE")
    assert PASSWORD not in repr(logs)


class TestSubscriptions:
    async def test_a_refused_one_is_told(self, own: Server, pair: tuple[Broker, Recorder]) -> None:
        broker, sink = pair
        own.do("ACL", "SETUSER", "node", "-subscribe")
        try:
            with pytest.raises(BrokerUnavailable, match=r"refused the subscription \(NOPERM\)"):
                await broker.subscribe("other")
        finally:
            own.do("ACL", "SETUSER", "node", "+subscribe")
        await broker.subscribe("other")
        assert sink.events == []

    async def test_one_that_is_refused_after_a_loss_is_tried_again(
        self, own: Server, settings: Settings, pair: tuple[Broker, Recorder]
    ) -> None:
        """The node would be deaf in this room for ever, and not know it."""
        broker, sink = pair
        own.do("ACL", "SETUSER", "node", "resetchannels", f"&{settings.key_prefix}node*", f"&{settings.key_prefix}con*")
        await until(lambda: "lost" in sink.events, "the server ends what is not allowed any more")
        with capture_logs() as logs:
            await until(lambda: logs, "it was tried again")
        assert not broker.connected
        assert ["room"] not in sink.events
        own.do("ACL", "SETUSER", "node", "allchannels")
        await until(lambda: hears(broker, settings), "it hears again")
        assert sink.events[-1] == ["room"]
        await broker.publish("room", ENVELOPE, history=HISTORY)
        await until(lambda: sink.publications, "heard")


class TestEntriesDeletedByHand:
    """R2: a hole that history confirms is counted and ends in a new epoch, whoever finds it."""

    #: Which of seven entries are deleted, and reads that find it: since, limit, reverse.
    HOLES: tuple[tuple[set[int], int | None, int, bool], ...] = (
        ({4}, None, 10, False),
        ({4}, 2, 10, False),
        ({4}, 3, 10, False),
        ({4}, 3, 1, False),
        ({7}, None, 10, False),
        ({7}, 5, 10, False),
        ({7}, 6, 10, False),
        ({6, 7}, 5, 10, False),
        ({4}, None, 10, True),
        ({4}, 6, 10, True),
        ({4}, 5, 10, True),
        ({7}, None, 1, True),
        ({7}, 9, 1, True),
    )
    #: The same, where there is no hole, or it is not in the range, or the oldest ones have been trimmed.
    NO_HOLES: tuple[tuple[set[int], int | None, int, bool], ...] = (
        ({1, 2}, None, 10, False),
        ({1, 2}, 0, 10, False),
        ({1, 2}, 1, 10, False),
        ({1, 2}, None, 10, True),
        ({4}, 4, 10, False),
        ({4}, None, 3, False),
        ({4}, None, 3, True),
        ({4}, 4, 10, True),
        ({4}, None, 0, False),
        ({1, 2, 3, 4, 5, 6, 7}, 3, 10, False),
        ({1, 2, 3, 4, 5, 6, 7}, None, 10, True),
        (set(), 9, 10, False),
        (set(), 9, 10, True),
        (set(), 7, 10, False),
        (set(), 1, 10, True),
    )
    SEVEN = History(size=7, ttl=60, meta_ttl=3600)

    async def read(
        self, own: Server, broker: Broker, room: str, delete: set[int], since: int | None, limit: int, reverse: bool
    ) -> bool:
        """Whether a read of seven publications, without the deleted ones, began a new epoch."""
        channel = f"{broker._settings.key_prefix}{{{room}}}"  # type: ignore[attr-defined]
        for _ in range(7):
            old = await broker.publish(room, ENVELOPE, history=self.SEVEN)
        for offset in delete:
            own.do("XDEL", f"{channel}:stream", f"0-{offset}")
        holes = broker.stats.holes
        page = await broker.read(room, self.SEVEN, since=since, limit=limit, reverse=reverse)
        if page.top == old:
            assert broker.stats.holes == holes
            return False
        assert page.top.epoch != old.epoch
        assert (page.top.offset, page.publications, page.cut) == (0, [], False)
        assert broker.stats.holes == holes + 1
        assert own.do("EXISTS", f"{channel}:stream") == 0
        assert await broker.publish(room, ENVELOPE, history=self.SEVEN) == Position(page.top.epoch, 1)
        return True

    async def test_a_hole_in_what_was_asked_for(self, own: Server, pair: tuple[Broker, Recorder]) -> None:
        for number, (delete, since, limit, reverse) in enumerate(self.HOLES):
            found = await self.read(own, pair[0], f"room{number}", delete, since, limit, reverse)
            assert found, (delete, since, limit, reverse)

    async def test_what_is_no_hole(self, own: Server, pair: tuple[Broker, Recorder]) -> None:
        for number, (delete, since, limit, reverse) in enumerate(self.NO_HOLES):
            found = await self.read(own, pair[0], f"room{number}", delete, since, limit, reverse)
            assert not found, (delete, since, limit, reverse)

    async def test_publishing_goes_on_with_every_entry_deleted(
        self, own: Server, pair: tuple[Broker, Recorder], channel: str
    ) -> None:
        broker, _ = pair
        for _ in range(2):
            top = await broker.publish("room", ENVELOPE, history=HISTORY)
        own.do("XTRIM", f"{channel}:stream", "MAXLEN", 0)
        assert await broker.publish("room", ENVELOPE, history=HISTORY) == Position(top.epoch, 3)

    async def test_a_stream_that_is_ahead_of_its_meta_begins_a_new_epoch(
        self, own: Server, pair: tuple[Broker, Recorder], channel: str
    ) -> None:
        """Somebody has added an entry, or set meta back: no publication would be taken until the history ends."""
        broker, sink = pair
        old = await broker.publish("room", ENVELOPE, history=HISTORY)
        own.do("XADD", f"{channel}:stream", "*", "strange", "entry")
        new = await broker.publish("room", ENVELOPE + b"new", history=HISTORY)
        assert new.epoch != old.epoch
        assert new.offset == 1
        page = await broker.read("room", HISTORY, since=None, limit=10)
        assert page == Page(new, [(1, ENVELOPE + b"new")])
        await until(lambda: len(sink.publications) == 2, "heard")

    @pytest.mark.parametrize("field", ["epoch", "offset"])
    async def test_meta_that_says_nothing_begins_a_new_epoch(
        self, own: Server, pair: tuple[Broker, Recorder], channel: str, field: str
    ) -> None:
        broker, _ = pair
        old = await broker.publish("room", ENVELOPE, history=HISTORY)
        own.do("HDEL", f"{channel}:meta", field)
        new = await broker.publish("room", ENVELOPE, history=HISTORY)
        assert new.epoch != old.epoch
        assert new.offset == 1

    async def test_members_are_told(self, own: Server, settings: Settings) -> None:
        options: dict[str, Any] = {"namespaces": {"chat": {"history_size": 100}}, "key_prefix": settings.key_prefix}
        async with Node(redis_url=settings.broker_url, **options) as node:
            ann = await node.connect("ann", "chat:x")
            positions = [await node.gateway.publish("chat:x", number) for number in range(3)]
            await until(lambda: len(ann.data("chat:x")) == 3, "heard")
            own.do("XDEL", settings.key_prefix + "{chat:x}:stream", "0-2")
            bob = await node.connect("bob")
            since = {"epoch": positions[0].epoch, "offset": 1}
            reply = await bob.ask("subscribe", room="chat:x", since=since)
            assert reply["recovered"] is False
            assert reply["epoch"] != positions[0].epoch
            assert reply["offset"] == 0
            await until(lambda: ann.of_type("insufficient"), "the member is told")
            await node.gateway.publish("chat:x", "next")
            for peer in (ann, bob):
                await until(lambda peer=peer: peer.data("chat:x")[-1:] == ["next"], "it goes on")  # type: ignore[misc]
