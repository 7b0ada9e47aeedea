"""Whatever a broker does, and in whichever order: members of a room with history miss nothing silently (invariant 1).

A model test (R5): real sessions, rooms, joins, merges and repairs of two nodes; a simulated Redis that answers when
hypothesis says so, and reorders, repeats and drops what it carries; clients that come back as an SDK does."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.simulated_broker import SimulatedBroker
from tests.support.simulated_world import ENOUGH, MEMBERS, World


def pick(some: Sequence[Any], one: int) -> Any:
    return some[one % len(some)]


def coming(broker: SimulatedBroker) -> object:
    return broker.coming


def carrying(broker: SimulatedBroker) -> object:
    return broker.coming or broker.delivered


def asking(broker: SimulatedBroker) -> object:
    return broker.requests


ONE = st.integers(0, MEMBERS - 1)

#: Most are on one node, so that they meet.
NODE = st.sampled_from([0, 0, 0, 1])

#: Four of the long ones are an outbox full, two are what is replayed at most (R3).
PADS = st.sampled_from([0, 0, 0, 900])

#: What is lost is told, and who was told may miss what it likes: losses are rare, or they would hide mistakes.
PUBLISHERS = st.sampled_from(["somebody"] * 6 + ["a member"] * 2 + ["a later release"])
LOSSES = st.sampled_from([None] * 8 + ["the old ones", "all"])


class Recovery(RuleBasedStateMachine):
    """One room on two nodes, and every event that decides about its order.

    Few rules, as hypothesis leaves out some of them in each example: each has both of what belongs together."""

    world: World

    @initialize(
        namespace=st.sampled_from(["kept", "kept", "windowed", "windowed", "short"]),
        pads=st.lists(PADS, max_size=8),
        positions=st.lists(st.none() | st.integers(0, 8), min_size=MEMBERS, max_size=MEMBERS),
        nodes=st.lists(NODE, min_size=MEMBERS, max_size=MEMBERS),
        here=st.booleans(),
        prompt=st.booleans(),
    )
    def begin(
        self, namespace: str, pads: list[int], positions: list[int | None], nodes: list[int], here: bool, prompt: bool
    ) -> None:
        """A room that has been, and members that have been there, who come; or are here already."""
        self.world = World(namespace)
        for pad in pads:
            self.world.publish(pad)
        epoch = self.world.redis.record(self.world.room).epoch
        for member, offset, node in zip(self.world.members, positions, nodes, strict=True):
            if offset is not None and offset <= len(pads):
                member.position = (epoch, offset)
                member.been_at = [member.position]
            member.come(node)
        if here:
            self.world.settle()
        for broker in self.world.brokers:
            broker.prompt = prompt

    # -- clients

    @rule(one=ONE, node=NODE, back=st.integers(0, 3))
    def come_or_go(self, one: int, node: int, back: int) -> None:
        """From where it was, or from where the connection may have been cut off."""
        member = self.world.members[one]
        if member.peer is None:
            member.come(node, back)
        else:
            member.disconnect()

    @precondition(lambda self: self.world.settled)
    @rule(one=ONE, kind=st.sampled_from(["new", "known", "known", "future", "another epoch"]))
    def join_or_leave(self, one: int, kind: str) -> None:
        """In the same connection."""
        member = pick(self.world.settled, one)
        top = self.world.redis.record(self.world.room).top
        if member.subscribed:
            member.unsubscribe()
        else:
            since = {"new": None, "known": member.position, "future": (top.epoch, top.offset + 3)}
            member.subscribe(since.get(kind, ("elsewhere", top.offset)))

    @precondition(lambda self: self.world.connected)
    @rule(one=ONE, after=st.integers(0, 2))
    def stop_or_begin_to_read(self, one: int, after: int) -> None:
        peer = pick(self.world.connected, one).peer
        self.world.do(peer.read_again if peer.connection.capacity is not None else lambda: peer.stop_reading(after))

    # -- publications

    @rule(who=PUBLISHERS, one=ONE, pad=PADS, count=st.sampled_from([1, 1, 1, 4]))
    def publish(self, who: str, one: int, pad: int, count: int) -> None:
        if who == "a later release":
            self.world.publish_unreadable()
        elif who == "a member" and self.world.subscribed:
            pick(self.world.subscribed, one).publish()
        else:
            for _ in range(count):
                self.world.publish(pad)

    # -- the broker

    @precondition(lambda self: self.world.nodes(coming))
    @rule(one=ONE, index=st.sampled_from([0, 0, 1, 2, None]))
    def deliver(self, one: int, index: int | None) -> None:
        """One of what comes, or all of it."""
        node = pick(self.world.nodes(coming), one)
        broker = self.world.brokers[node]
        self.world.deliver(node, (index or 0) % len(broker.coming))
        while index is None and broker.coming:
            self.world.deliver(node, 0)

    @precondition(lambda self: self.world.nodes(carrying))
    @rule(one=ONE, index=st.integers(0, 5), drop=st.booleans())
    def drop_or_repeat(self, one: int, index: int, drop: bool) -> None:
        node = pick(self.world.nodes(carrying), one)
        broker = self.world.brokers[node]
        if broker.coming and (drop or not broker.delivered):
            self.world.drop(node, index % len(broker.coming))
        else:
            self.world.do(lambda: broker.repeat(-1 - index % len(broker.delivered)))

    @precondition(lambda self: self.world.nodes(asking))
    @rule(one=ONE, index=ONE, how=st.sampled_from(["answer", "answer all", "carry out", "carry out", "fail"]))
    def serve(self, one: int, index: int, how: str) -> None:
        """What is only carried out has an answer of this moment, that comes later."""
        node = pick(self.world.nodes(asking), one)
        requests = self.world.brokers[node].requests
        request = pick(requests, index)
        if how == "answer":
            self.world.answer(node, request)
        elif how == "carry out":
            request.carry_out()
        elif how == "answer all":
            for each in tuple(requests):
                self.world.answer(node, each)
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
        loss=LOSSES,
    )
    def pass_time(self, turns: int, seconds: float, loss: str | None) -> None:
        """From now on so many turns of the event loop are between two events."""
        self.world.pace = turns
        self.world.loop.advance(seconds)
        self.world.loop.turn(turns)
        if loss == "all":
            self.world.begin_epoch()
        elif loss == "the old ones":
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
            assert len(gateway._tasks) == self.world.standing_tasks, "only what runs all the time"
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
TestRecovery = pytest.mark.timeout(300)(Recovery.TestCase)  # to make a failure short takes a minute
TestRecovery.settings = settings(THOROUGH, max_examples=350, stateful_step_count=40, derandomize=True)
TestRecoveryAtRandom = pytest.mark.long(pytest.mark.timeout(600)(AtRandom.TestCase))
TestRecoveryAtRandom.settings = THOROUGH
