"""Whatever a broker does, and in whichever order: members of a room with history miss nothing silently (invariant 1).

A model test (R5): real sessions, rooms, joins, merges and repairs of two nodes; a simulated Redis that answers when
hypothesis says so, and reorders, repeats and drops what it carries; clients that come back as an SDK does."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.auth.permissions import Claims
from app.broker.base import Position
from app.gateway.gateway import Gateway
from app.gateway.hook_calls import HookCalls
from app.settings import load
from tests.support.in_process import Peer
from tests.support.simulated_broker import Heard, Request, SimulatedBroker, SimulatedRedis
from tests.support.virtual_loop import VirtualLoop

OUTBOX_BYTES = 4000
NODES = 2
MEMBERS = 3

#: How rooms keep and send: room for everything; for little; in windows, in which positions run ahead of what was sent.
NAMESPACES: dict[str, dict[str, Any]] = {
    "kept": {"history_size": 200},
    "short": {"history_size": 3},
    "windowed": {"history_size": 200, "coalesce_ms": 50},
}
SETTINGS = load(
    internal_port=0,
    ping_interval=0,
    unsubscribe_delay=1,
    outbox_bytes=OUTBOX_BYTES,
    message_rate=0,
    native_send=False,
    namespaces={name: options | {"echo": True} for name, options in NAMESPACES.items()},
)

#: Turns of the event loop that is enough for whatever was begun to come to where it waits again.
ENOUGH = 25


class Published:
    """All publications, in the order in which the broker took them: the n-th has the data n."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.sizes: list[int] = []
        self.unreadable: set[int] = set()
        #: By position; the beginning of an epoch is there too, as what came before it.
        self.numbers: dict[tuple[str, int], int] = {}

    def number(self, epoch: str, offset: int) -> int:
        """The last one that somebody at this position has seen."""
        return self.numbers.get((epoch, offset), -1)


class Member:
    """A client as an SDK is one, which checks what it gets."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.peer: Peer | None = None
        self.node = 0
        #: Its subscription, as the client knows it.
        self.subscribed = False
        #: The subscribe command that is not answered yet.
        self.asked: dict[str, Any] | None = None
        #: What it would come back with; all that it could have been cut off at.
        self.position: tuple[str, int] | None = None
        self.been_at: list[tuple[str, int]] = []
        #: The epoch of what it receives. Unsure after `insufficient`: any later publication may be next.
        self.epoch = ""
        self.sure = False
        self.last = -1
        #: How often it was too slow: after the second time nothing need be replayed to it (R3).
        self.too_slow = 0
        self._ids = 0

    # -- what it does

    def connect(self, node: int) -> None:
        self.node = node
        gateway = self.world.gateways[node]
        self.peer = self.world.loop.do(lambda: Peer(gateway))
        self.world.finish(gateway.admit(self.peer.session, Claims(self.name, None, ("*",), ("*",))))
        assert [event["type"] for event in self.peer.news()] == ["welcome"]

    def disconnect(self) -> None:
        peer, self.peer = self.peer, None
        assert peer is not None
        self.world.do(lambda: peer.lose())
        self.subscribed = False
        self.asked = None

    def send(self, type: str, **fields: Any) -> int:
        assert self.peer is not None
        self._ids += 1
        message = {"type": type, "id": self._ids, "room": self.world.room, **fields}
        peer = self.peer
        self.world.do(lambda: peer.send(message))
        return self._ids

    def subscribe(self, since: tuple[str, int] | None) -> None:
        fields = {} if since is None else {"since": {"epoch": since[0], "offset": since[1]}}
        self.asked = {"since": since, "excused": self.world.excuses_for(since), "changes": self.world.changes}
        self.asked["id"] = self.send("subscribe", **fields)

    def publish(self) -> None:
        """Itself; nothing of that waits for the broker."""
        data = {"n": len(self.world.published.positions), "pad": ""}
        self.send("publish", data=data)
        self.world.loop.turn(ENOUGH)
        self.world.note(data)

    def unsubscribe(self) -> None:
        self.send("unsubscribe")
        self.look()
        self.subscribed = False

    # -- what it sees

    def look(self) -> None:
        if self.peer is None:
            return
        for event in self.peer.news():
            getattr(self, "_" + event["type"])(event)
        if self.peer is not None and self.peer.connection.closed is not None:
            assert self.peer.connection.closed[0] == 3008, "only for being slow is anybody sent away here"
            self.too_slow += 1
            self.disconnect()

    def _goodbye(self, event: dict[str, Any]) -> None:
        assert event["code"] == 3008

    def _error(self, event: dict[str, Any]) -> None:
        assert event["code"] == 100, event
        assert self.asked is not None
        self.asked = None

    def _ok(self, event: dict[str, Any]) -> None:
        asked = self.asked
        if asked is None or event["id"] != asked["id"]:
            return
        self.asked, self.subscribed = None, True
        since, told = asked["since"], event.get("recovered")
        at = (event["epoch"], event["offset"])
        assert (told is None) == (since is None)
        if told:
            assert at == since, "what it has is what it came with"
        elif since is not None:
            excused = (
                self.too_slow > 1
                or asked["excused"]
                or self.world.excuses_for(since)
                or asked["changes"] != self.world.changes
            )
            assert excused, f"{since} could have been recovered"
        self.epoch, self.sure, self.last = at[0], True, self.world.published.number(*at)
        self.position, self.been_at = at, [at]

    def _insufficient(self, event: dict[str, Any]) -> None:
        assert self.world.something_was_lost, "nothing is lost, and it is told so"
        self.sure = False

    def _message(self, event: dict[str, Any]) -> None:
        assert self.subscribed, "nothing before the reply, and nothing after leaving (O3)"
        assert self.position is not None
        number, offset = event["data"]["n"], event["offset"]
        published = self.world.published.positions[number]
        assert published.offset == offset, "the right data"
        assert number > self.last, "in order, and never twice"
        if self.sure:
            assert (published.epoch, offset) == (self.epoch, self.position[1] + 1), "no silent gap"
        self.epoch, self.sure, self.last = published.epoch, True, number
        self.position = (self.position[0], offset)
        self.been_at.append(self.position)


class World:
    """Two nodes, their Redis, and who is connected to them."""

    def __init__(self, namespace: str) -> None:
        self.loop = VirtualLoop()
        #: Turns of the event loop between two events.
        self.pace = ENOUGH
        self.room = f"{namespace}:x"
        self.options = SETTINGS.namespaces[namespace]
        self.redis = SimulatedRedis()
        self.redis.begin_epoch(self.room)
        self.published = Published()
        self.published.numbers[self.redis.record(self.room).epoch, 0] = -1
        self.something_was_lost = namespace == "short"
        #: How often the room began another epoch, or its history was trimmed.
        self.changes = 0
        #: The last publication that a node did not hear, which it cannot know before a later one.
        self.unheard = dict.fromkeys(range(NODES), -1)
        self.brokers: list[SimulatedBroker] = []
        self.gateways: list[Gateway] = []
        for number in range(NODES):
            broker = self.loop.do(lambda: SimulatedBroker(self.redis))
            hooks = HookCalls(None, SETTINGS.hook_timeout)
            self.brokers.append(broker)
            self.gateways.append(Gateway(SETTINGS, broker, hooks, f"node-{number}"))
        for gateway in self.gateways:
            self.finish(gateway.start())
        self.members = [Member(self, f"m{number}") for number in range(MEMBERS)]

    def finish(self, work: Any) -> Any:
        """Runs something that waits for nothing simulated."""
        task = self.loop.create_task(work)
        self.loop.turn(5)
        return task.result()

    def deliver(self, node: int, index: int) -> None:
        broker = self.brokers[node]
        if self.number_of(broker.coming[index]) > self.unheard[node]:
            self.unheard[node] = -1
        self.do(lambda: broker.deliver(index))

    def drop(self, node: int, index: int) -> None:
        heard = self.brokers[node].coming.pop(index)
        self.unheard[node] = max(self.unheard[node], self.number_of(heard))

    def answer(self, node: int, request: Request) -> None:
        """A subscription is confirmed on a connection that stands."""
        if request.what != "subscribe" or self.brokers[node].is_connected:
            self.do(request.answer)

    def number_of(self, heard: Heard) -> int:
        return self.published.number(heard.position.epoch, heard.position.offset)

    def do(self, action: Callable[[], object]) -> None:
        self.loop.do(action)
        self.loop.turn(self.pace - 1)

    def close(self) -> None:
        stopped = [self.loop.create_task(gateway.stop()) for gateway in self.gateways]
        while not all(task.done() for task in stopped):
            self.loop.advance(0.5)
            self.loop.turn(5)
        for task in stopped:
            task.result()
        self.loop.close()

    def publish(self, pad: int) -> None:
        """The application does, on the first node. It is in history at once; how it reaches nodes is another matter."""
        data = {"n": len(self.published.positions), "pad": "x" * pad}
        self.finish(self.gateways[0].publish(self.room, data))
        self.note(data)

    def publish_unreadable(self) -> None:
        """A node of a later release does (P6)."""
        history = self.gateways[0].hub.history_of(self.options)
        self.redis.append(self.room, b"2{}", history)
        self.note({})
        self.published.unreadable.add(len(self.published.positions) - 1)
        self.something_was_lost = True

    def note(self, data: dict[str, Any]) -> None:
        top = self.redis.record(self.room).top
        self.published.numbers[top.epoch, top.offset] = len(self.published.positions)
        self.published.positions.append(top)
        self.published.sizes.append(len(msgspec.json.encode(data)))

    def begin_epoch(self) -> None:
        self.redis.begin_epoch(self.room)
        self.published.numbers[self.redis.record(self.room).epoch, 0] = len(self.published.positions) - 1
        self.something_was_lost = True
        self.changes += 1

    def trim(self) -> None:
        self.redis.record(self.room).kept.clear()
        self.something_was_lost = True
        self.changes += 1

    def excuses_for(self, since: tuple[str, int] | None) -> bool:
        """Whether that position cannot be recovered from now."""
        if since is None:
            return False
        record = self.redis.record(self.room)
        if since[0] != record.epoch or since[1] > record.offset:
            return True
        missed = range(since[1] + 1, record.offset + 1)
        kept = {offset for offset, _ in record.kept}
        numbers = {self.published.number(record.epoch, offset) for offset in missed}
        size = sum(self.published.sizes[number] for number in numbers)
        return not kept.issuperset(missed) or size > OUTBOX_BYTES // 2 or bool(numbers & self.published.unreadable)

    # -- whom an event can be about

    @property
    def away(self) -> list[Member]:
        return [member for member in self.members if member.peer is None]

    @property
    def connected(self) -> list[Member]:
        return [member for member in self.members if member.peer is not None]

    @property
    def idle(self) -> list[Member]:
        return [member for member in self.connected if not member.subscribed and member.asked is None]

    @property
    def subscribed(self) -> list[Member]:
        return [member for member in self.connected if member.subscribed]

    def nodes(self, which: Callable[[SimulatedBroker], object]) -> list[int]:
        return [number for number, broker in enumerate(self.brokers) if which(broker)]

    # -- to where nothing waits any more

    def settle(self) -> None:
        """The broker does all that it owes, and clients read."""
        for _ in range(60):
            busy = False
            for broker in self.brokers:
                busy |= self._serve(broker)
                self.loop.turn(ENOUGH)
            for member in self.connected:
                if member.peer.connection.capacity is not None:
                    self.loop.do(member.peer.read_again)
                    busy = True
            self.loop.advance(1.0)
            self.loop.turn(ENOUGH)
            for member in self.members:
                member.look()
            if not busy:
                return
        raise AssertionError("it never comes to rest")

    def _serve(self, broker: SimulatedBroker) -> bool:
        busy = bool(broker.requests or broker.coming or broker.untold or not broker.is_connected)
        if not broker.is_connected:
            self.loop.do(broker.come_back)
        if broker.untold:
            self.loop.do(broker.tell_restored)
        for request in tuple(broker.requests):
            self.loop.do(request.answer)
        while broker.coming:
            self.deliver(self.brokers.index(broker), 0)
        return busy


def pick(some: Sequence[Any], one: int) -> Any:
    return some[one % len(some)]


def coming(broker: SimulatedBroker) -> object:
    return broker.coming


def delivered(broker: SimulatedBroker) -> object:
    return broker.delivered


def asking(broker: SimulatedBroker) -> object:
    return broker.requests


ONE = st.integers(0, MEMBERS - 1)

#: Four of the long ones are an outbox full, two are what is replayed at most (R3).
PADS = st.sampled_from([0, 0, 0, 900])


class Recovery(RuleBasedStateMachine):
    """One room on two nodes, and every event that decides about its order."""

    world: World

    @initialize(
        namespace=st.sampled_from(sorted(NAMESPACES)),
        pads=st.lists(PADS, max_size=8),
        positions=st.lists(st.none() | st.integers(0, 8), min_size=MEMBERS, max_size=MEMBERS),
    )
    def begin(self, namespace: str, pads: list[int], positions: list[int | None]) -> None:
        """A room that has been, and members that have been there."""
        self.world = World(namespace)
        for pad in pads:
            self.world.publish(pad)
        epoch = self.world.redis.record(self.world.room).epoch
        for member, offset in zip(self.world.members, positions, strict=True):
            if offset is not None and offset <= len(pads):
                member.position = (epoch, offset)
                member.been_at = [member.position]

    # -- clients

    @precondition(lambda self: self.world.away)
    @rule(one=ONE, node=st.integers(0, NODES - 1), back=st.integers(0, 3))
    def come(self, one: int, node: int, back: int) -> None:
        """Connects, and subscribes from where it was, or from where the connection may have been cut off."""
        member = pick(self.world.away, one)
        member.connect(node)
        member.subscribe(member.been_at[max(-len(member.been_at), -1 - back)] if member.been_at else None)

    @precondition(lambda self: self.world.idle)
    @rule(one=ONE, kind=st.sampled_from(["new", "known", "future", "another epoch"]))
    def subscribe(self, one: int, kind: str) -> None:
        """In the same connection."""
        member = pick(self.world.idle, one)
        top = self.world.redis.record(self.world.room).top
        since = {"new": None, "known": member.position, "future": (top.epoch, top.offset + 3)}
        member.subscribe(since.get(kind, ("elsewhere", top.offset)))

    @precondition(lambda self: self.world.subscribed)
    @rule(one=ONE)
    def unsubscribe(self, one: int) -> None:
        pick(self.world.subscribed, one).unsubscribe()

    @precondition(lambda self: self.world.connected)
    @rule(one=ONE)
    def disconnect(self, one: int) -> None:
        pick(self.world.connected, one).disconnect()

    @precondition(lambda self: self.world.connected)
    @rule(one=ONE, after=st.integers(0, 2))
    def stop_or_begin_to_read(self, one: int, after: int) -> None:
        peer = pick(self.world.connected, one).peer
        self.world.do(peer.read_again if peer.connection.capacity is not None else lambda: peer.stop_reading(after))

    # -- publications

    @rule(pad=PADS, count=st.sampled_from([1, 1, 3]))
    def publish(self, pad: int, count: int) -> None:
        for _ in range(count):
            self.world.publish(pad)

    @rule(of_later_release=st.sampled_from([False, False, True]))
    def publish_one(self, of_later_release: bool) -> None:
        if of_later_release:
            self.world.publish_unreadable()
        else:
            self.world.publish(0)

    @precondition(lambda self: self.world.subscribed)
    @rule(one=ONE)
    def member_publishes(self, one: int) -> None:
        pick(self.world.subscribed, one).publish()

    # -- the broker

    @precondition(lambda self: self.world.nodes(coming))
    @rule(one=ONE, index=st.sampled_from([0, 0, 0, 1, 2]))
    def deliver(self, one: int, index: int) -> None:
        node = pick(self.world.nodes(coming), one)
        self.world.deliver(node, index % len(self.world.brokers[node].coming))

    @precondition(lambda self: self.world.nodes(coming))
    @rule(one=ONE)
    def deliver_all(self, one: int) -> None:
        node = pick(self.world.nodes(coming), one)
        while self.world.brokers[node].coming:
            self.world.deliver(node, 0)

    @precondition(lambda self: self.world.nodes(coming))
    @rule(one=ONE, index=st.sampled_from([0, 0, 1]))
    def drop(self, one: int, index: int) -> None:
        node = pick(self.world.nodes(coming), one)
        self.world.drop(node, index % len(self.world.brokers[node].coming))

    @precondition(lambda self: self.world.nodes(delivered))
    @rule(one=ONE, index=st.integers(0, 5))
    def repeat(self, one: int, index: int) -> None:
        broker = self.world.brokers[pick(self.world.nodes(delivered), one)]
        self.world.do(lambda: broker.repeat(-1 - index % len(broker.delivered)))

    @precondition(lambda self: self.world.nodes(asking))
    @rule(one=ONE, index=st.integers(0, 3))
    def answer(self, one: int, index: int) -> None:
        node = pick(self.world.nodes(asking), one)
        self.world.answer(node, pick(self.world.brokers[node].requests, index))

    @precondition(lambda self: self.world.nodes(asking))
    @rule(one=ONE)
    def answer_all(self, one: int) -> None:
        """And what is asked next."""
        node = pick(self.world.nodes(asking), one)
        for _ in range(2):
            for request in tuple(self.world.brokers[node].requests):
                self.world.answer(node, request)

    @precondition(lambda self: self.world.nodes(asking))
    @rule(one=ONE, index=st.integers(0, 3), fails=st.sampled_from([False, False, True]))
    def carry_out(self, one: int, index: int, fails: bool) -> None:
        """The answer is of this moment, and comes later; or never."""
        request = pick(self.world.brokers[pick(self.world.nodes(asking), one)].requests, index)
        if not fails:
            request.carry_out()
        elif request.what != "unsubscribe":
            self.world.do(request.fail)

    @precondition(lambda self: self.world.subscribed)
    @rule(one=ONE, again=st.sampled_from([False, False, True]))
    def go_on_with_outage(self, one: int, again: bool) -> None:
        """The connection is lost; it is back, and rooms are heard again; the node is told so. It may be lost before."""
        broker = self.world.brokers[pick(self.world.subscribed, one).node]
        if not broker.is_connected:
            self.world.do(broker.come_back)
        elif broker.untold and not again:
            self.world.do(broker.tell_restored)
        else:
            self.world.do(broker.lose)

    # -- time

    @rule(
        turns=st.sampled_from([1, 2, ENOUGH]),
        seconds=st.sampled_from([0, 0.05, 0.6, 1.1]),
        history=st.sampled_from(["stays", "stays", "stays", "is too old", "is lost"]),
    )
    def pass_time(self, turns: int, seconds: float, history: str) -> None:
        """From now on so many turns of the event loop are between two events."""
        self.world.pace = turns
        self.world.loop.advance(seconds)
        self.world.loop.turn(turns)
        if history == "is lost":
            self.world.begin_epoch()
        elif history == "is too old":
            self.world.trim()

    @invariant()
    def everybody_sees_what_is_true(self) -> None:
        for member in self.world.members:
            member.look()
        assert not self.world.loop.failures, self.world.loop.failures

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._comes_to_rest()
        finally:
            self.world.close()

    def _comes_to_rest(self) -> None:
        world = self.world
        world.settle()
        top = world.redis.record(world.room).top
        for member in world.members:
            unaware = world.unheard[member.node] >= 0 or top.offset == 0  # a new epoch without a publication
            if member.subscribed and member.sure and not unaware:
                assert (member.epoch, member.position and member.position[1]) == (top.epoch, top.offset), "caught up"
        for _ in range(2):  # by the first one a node may notice another epoch: that is told in its place
            world.publish(0)
            world.settle()
        top = world.redis.record(world.room).top
        for member in world.members:
            assert member.asked is None, "every command is answered"
            if member.subscribed:
                assert member.sure
                assert (member.epoch, member.position and member.position[1]) == (top.epoch, top.offset), "caught up"
        self._nothing_is_left()

    def _nothing_is_left(self) -> None:
        """Bounded: what was needed on the way is gone (invariant 2)."""
        for gateway in self.world.gateways:
            for room in gateway.hub.rooms.values():
                assert room.members, "an empty room is left"
                assert room.held is None
                assert not any((room.joining, room.reads, room.late, room.skipped, room.ready))
                assert not any((room.waiting, room.pending, room.passing))
            assert not gateway.hub._leaving
            assert not gateway.hub._repairs._tasks
            assert len(gateway._tasks) == 1, "the timer wheel's"
        assert not any(broker.requests for broker in self.world.brokers)


class AtRandom(Recovery):
    """The same with other examples in each run; what fails is printed, and can be pasted into a test."""


THOROUGH = settings(
    max_examples=3000,
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(THOROUGH, max_examples=300, stateful_step_count=40, derandomize=True)
TestRecoveryAtRandom = pytest.mark.long(pytest.mark.timeout(600)(AtRandom.TestCase))
TestRecoveryAtRandom.settings = THOROUGH
