"""What a node hears of one shard: the subscriptions on one connection, made again after each loss."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from app.broker.base import BrokerUnavailable, Sink
from app.broker.connection import Connection, Reply, ReplyError
from app.broker.stats import Stats

log = structlog.get_logger()

# A subscription that was refused like this belongs to another shard by now, or will in a moment (R4).
ASTRAY = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})


class Verbs(NamedTuple):
    """The pub/sub commands, and what a message begins with."""

    subscribe: str
    unsubscribe: str
    publish: str
    message: bytes


PLAIN = Verbs("SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH", b"message")
SHARDED = Verbs("SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH", b"smessage")


class Interest:
    """The rooms that the node wants to hear, of all shards."""

    __slots__ = ("rooms", "waiting")

    def __init__(self) -> None:
        #: Channel -> room.
        self.rooms: dict[bytes, str] = {}
        #: Channels whose first confirmation somebody waits for.
        self.waiting: dict[bytes, asyncio.Future[None]] = {}


class _Order(NamedTuple):
    """One channel's subscription or its end, until the server confirms it."""

    verb: str
    channel: bytes
    waiter: asyncio.Future[None] | None


class SubscriberConnection(Connection):
    """One command per channel: each has exactly one answer, so an error is known to be about its channel.

    Pipelined, 10,000 of them cost the server little more than a few large commands, and in a cluster each slot needs
    its own (R4)."""

    def __init__(self, timeout: float, subscriber: "Subscriber", heard: Callable[[bytes, bytes], None]) -> None:
        super().__init__(timeout)
        self._subscriber = subscriber
        self._heard = heard
        self._message = subscriber.verbs.message
        self._unsubscribe = subscriber.verbs.unsubscribe
        self._orders: deque[_Order] = deque()

    def order(self, order: _Order) -> None:
        self._orders.append(order)
        self._send((order.verb, order.channel))

    def _pending(self) -> int:
        return len(self._owed) + len(self._orders)

    def _received(self, reply: Reply) -> None:
        if type(reply) is list and reply[0] == self._message:
            try:
                self._heard(reply[1], reply[2])
            except Exception:  # a mistake in the node must not end the connection
                log.exception("broker.sink_failed")
        elif self._owed or not (self._orders or self._is_eviction(reply)):  # logging in, or unasked
            super()._received(reply)
        elif self._is_eviction(reply):
            self._subscriber.evicted(reply[1])
        else:
            order = self._orders.popleft()
            self._answered += 1
            if isinstance(reply, ReplyError):
                self._subscriber.refused(order, reply)
            else:
                self._subscriber.confirmed(order)

    def _is_eviction(self, reply: Reply) -> bool:
        """Whether the server ended a subscription by itself: its slot has moved (R4)."""
        if type(reply) is not list or reply[0] != b"sunsubscribe":
            return False
        head = self._orders[0] if self._orders else None
        return head is None or head.verb != self._unsubscribe or head.channel != reply[1]


class Subscriber:
    """The subscriptions of one shard. Tells the sink when they are lost, and when they stand again."""

    def __init__(
        self,
        interest: Interest,
        sink: Sink,
        stats: Stats,
        verbs: Verbs,
        *,
        wanted: Callable[[], Iterable[bytes]],
        astray: Callable[[], None],
        settled: Callable[[], None],
        lost: bool = False,
    ) -> None:
        """`wanted` gives every channel that belongs on this shard; `astray` is called when one does not, `settled`
        when everything is confirmed after a connection was made. `lost`: it takes over from one that was lost."""
        self.verbs = verbs
        self._interest = interest
        self._sink = sink
        self._stats = stats
        self._wanted = wanted
        self._astray = astray
        self._settled = settled
        self._connection: SubscriberConnection | None = None
        self._was_lost = lost
        # Channels ordered on this connection and not given up since.
        self._held: set[bytes] = set()
        # Channels whose confirmation is awaited before the sink hears `restored`, and rooms that have theirs.
        self._restoring: set[bytes] = set()
        self._restored: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether there is a connection, and nothing that a loss took waits for its confirmation."""
        return self._connection is not None and not self._restoring

    def up(self, connection: SubscriberConnection) -> None:
        self._connection = connection
        self.catch_up()

    def down(self) -> None:
        self._connection = None
        self._held.clear()
        self._restoring.clear()
        self._restored.clear()
        self._was_lost = True
        log.warning("broker.lost")
        self._sink.lost()

    def catch_up(self) -> None:
        """Orders what belongs here and is not ordered yet: after a connect, or when slots came to this shard."""
        if self._connection is None:
            return
        missing = [channel for channel in self._wanted() if channel not in self._held]
        for channel in missing:
            if channel not in self._interest.waiting:
                self._restoring.add(channel)
        for channel in missing:
            self.add(channel)

    def add(self, channel: bytes) -> None:
        if self._connection is not None:
            self._held.add(channel)
            waiter = self._interest.waiting.get(channel)
            self._connection.order(_Order(self.verbs.subscribe, channel, waiter))

    def remove(self, channel: bytes) -> None:
        if self._connection is not None and channel in self._held:
            self._held.discard(channel)
            self._connection.order(_Order(self.verbs.unsubscribe, channel, None))

    # Called by the connection

    def confirmed(self, order: _Order) -> None:
        if order.verb != self.verbs.subscribe:
            return
        channel = order.channel
        if order.waiter is not None:
            if self._interest.waiting.get(channel) is order.waiter:
                del self._interest.waiting[channel]
            if not order.waiter.done():
                order.waiter.set_result(None)
        if channel in self._restoring:
            room = self._interest.rooms.get(channel)
            if room is not None:
                self._restored.append(room)
            self._restoration_of(channel)

    def refused(self, order: _Order, error: ReplyError) -> None:
        self._held.discard(order.channel)
        if error.code in ASTRAY:
            self._astray()
        elif order.waiter is None:
            # What was subscribed before, or is the node's own, must not stay away: all of it again, after a while.
            log.error("broker.subscription_refused", reason=error.code)
            if self._connection is not None:
                self._connection.abort()
            return
        elif not order.waiter.done():
            order.waiter.set_exception(BrokerUnavailable(f"the broker refused the subscription ({error.code})"))
        self._restoration_of(order.channel)

    def evicted(self, channel: bytes) -> None:
        self._held.discard(channel)
        self._astray()

    def _restoration_of(self, channel: bytes) -> None:
        """One confirmation less to wait for; after the last one the sink hears what stands again."""
        if channel not in self._restoring:
            return
        self._restoring.discard(channel)
        if self._restoring:
            return
        restored, self._restored = self._restored, []
        if self._was_lost or restored:
            self._was_lost = False
            self._stats.resubscribed += len(restored)
            log.info("broker.restored", rooms=len(restored))
            self._sink.restored(restored)
        self._settled()
