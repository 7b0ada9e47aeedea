"""A Redis of which the test decides when it answers, and what becomes of each publication on its way to each node."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from app.broker.base import (
    NO_POSITION,
    Attended,
    Broker,
    BrokerUnavailable,
    History,
    Member,
    Page,
    Position,
    Presence,
    Present,
    Sink,
)
from app.broker.stats import Stats


class Heard(NamedTuple):
    """A publication on its way."""

    room: str
    position: Position
    envelope: bytes


class Record:
    """The truth about one room: its epoch, its top, and what history still has."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.offset = 0
        self.kept: deque[tuple[int, bytes]] = deque()

    @property
    def top(self) -> Position:
        return Position(self.epoch, self.offset)


class SimulatedRedis:
    """The rooms, and the nodes that hear them."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.nodes: list[SimulatedBroker] = []
        self._epochs = 0

    def record(self, room: str) -> Record:
        if room not in self.records:
            self.begin_epoch(room)
        return self.records[room]

    def begin_epoch(self, room: str) -> None:
        """Its history is lost: another one begins."""
        self._epochs += 1
        self.records[room] = Record(f"e{self._epochs}")

    def append(self, room: str, envelope: bytes, history: History | None) -> Position:
        position = NO_POSITION
        if history is not None:
            record = self.record(room)
            record.offset += 1
            record.kept.append((record.offset, envelope))
            while len(record.kept) > history.size:
                record.kept.popleft()
            position = record.top
        for node in self.nodes:
            node.announce(Heard(room, position, envelope))
        return position


class Request:
    """Something that a node waits for. `carry_out` is the moment in which the server does it, `answer` comes later."""

    def __init__(self, what: str, room: str, work: Callable[[], object]) -> None:
        self.what = what
        self.room = room
        self._work = work
        self._result: object = None
        self.carried_out = False
        self.answered = asyncio.get_running_loop().create_future()

    def carry_out(self) -> None:
        if not self.carried_out:
            self.carried_out = True
            self._result = self._work()

    def answer(self) -> None:
        self.carry_out()
        if not self.answered.done():
            self.answered.set_result(self._result)

    def fail(self) -> None:
        """The outcome is unknown to the node; the server may have done it."""
        if not self.answered.done():
            self.answered.set_exception(BrokerUnavailable("simulated"))


class SimulatedBroker(Broker):
    """One node's access to it. What it asks waits in `requests`, what comes to it in `coming`."""

    def __init__(self, redis: SimulatedRedis) -> None:
        self.stats = Stats()
        self._redis = redis
        redis.nodes.append(self)
        self.requests: list[Request] = []
        self.coming: list[Heard] = []
        #: What was delivered once and may come again.
        self.delivered: deque[Heard] = deque(maxlen=20)
        #: Rooms that the node has asked for, and those that the server sends.
        self.wanted: set[str] = set()
        self.sent: set[str] = set()
        self.is_connected = True
        #: Whether the server does at once what it is asked, so that only the answer comes later.
        self.prompt = False
        #: Rooms that are sent again after a loss, of which the node was not told yet.
        self._again: list[str] = []

    async def start(self, sink: Sink) -> None:
        self.sink = sink

    async def stop(self) -> None:
        pass

    # -- what a node asks

    async def _ask(self, what: str, room: str, work: Callable[[], object]) -> object:
        request = Request(what, room, work)
        if self.prompt:
            request.carry_out()
        self.requests.append(request)
        try:
            return await request.answered
        finally:
            if request in self.requests:
                self.requests.remove(request)

    async def subscribe(self, room: str) -> None:
        try:
            await self._ask("subscribe", room, lambda: self._begin_to_send(room))
        except BaseException:
            self.wanted.discard(room)
            self.sent.discard(room)
            raise

    def _begin_to_send(self, room: str) -> None:
        self.wanted.add(room)
        if self.is_connected:
            self.sent.add(room)

    async def unsubscribe(self, room: str) -> None:
        await self._ask("unsubscribe", room, lambda: self._stop_to_send(room))

    def _stop_to_send(self, room: str) -> None:
        self.wanted.discard(room)
        self.sent.discard(room)

    async def publish(
        self,
        room: str,
        envelope: bytes,
        *,
        history: History | None,
        idempotency_key: str | None = None,
        data: bytes | None = None,
    ) -> Position:
        return self._redis.append(room, envelope, history)

    async def read(
        self,
        room: str,
        history: History,
        *,
        since: int | None,
        limit: int,
        reverse: bool = False,
        max_bytes: int = 0,
    ) -> Page:
        page = await self._ask("read", room, lambda: self._page(room, since, limit, max_bytes))
        assert isinstance(page, Page)
        return page

    def _page(self, room: str, since: int | None, limit: int, max_bytes: int) -> Page:
        record = self._redis.record(room)
        found: list[tuple[int, bytes]] = []
        size = 0
        for offset, envelope in record.kept:
            if len(found) == limit:
                break
            if since is None or offset > since:
                size += len(envelope)
                if found and 0 < max_bytes < size:
                    return Page(record.top, found, cut=True)
                found.append((offset, envelope))
        return Page(record.top, found)

    # -- what becomes of what comes

    def announce(self, heard: Heard) -> None:
        if heard.room in self.sent:
            self.coming.append(heard)

    def deliver(self, index: int) -> None:
        """Not always the first one: they may come in another order."""
        heard = self.coming.pop(index)
        self.delivered.append(heard)
        self.sink.publication(*heard)

    def repeat(self, index: int) -> None:
        self.sink.publication(*self.delivered[index])

    def lose(self) -> None:
        """The subscriber connection is gone, with what was on its way."""
        self.is_connected = False
        self.sent.clear()
        self._again.clear()
        self.coming.clear()
        self.sink.lost()

    def come_back(self) -> None:
        """The server sends again what was asked for; the node is told that later (`tell_restored`)."""
        self.is_connected = True
        self.sent |= self.wanted
        self._again = sorted(self.wanted)

    def tell_restored(self) -> None:
        rooms, self._again = [room for room in self._again if room in self.wanted], []
        self.sink.restored(rooms)

    @property
    def untold(self) -> bool:
        """Whether the node has still to hear that it is back."""
        return bool(self._again)

    @property
    def echo_age(self) -> float:
        return 0.0

    @property
    def deaf_for(self) -> float:
        return 0.0

    @property
    def connected(self) -> bool:
        return self.is_connected

    async def revoked(self) -> dict[bytes, float]:
        return {}

    async def send_control(self, message: bytes) -> None:
        for node in self._redis.nodes:
            node.sink.control(message)

    # -- what no test asks of it

    async def revoke(self, entry: bytes, until: float, limit: int) -> bool:
        raise NotImplementedError

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        raise NotImplementedError

    async def take(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def admit_user(self, user: str, session: str, limit: int) -> bool:
        raise NotImplementedError

    async def refresh_users(self, sessions: Collection[tuple[str, str]]) -> None:
        raise NotImplementedError

    async def dismiss_user(self, user: str, session: str) -> None:
        raise NotImplementedError

    async def attend(
        self,
        room: str,
        presence: Presence,
        *,
        came: Sequence[Member] = (),
        went: Iterable[str] = (),
        whole: bool = False,
    ) -> Attended:
        raise NotImplementedError

    async def present(self, room: str, presence: Presence, limit: int) -> Present:
        raise NotImplementedError
