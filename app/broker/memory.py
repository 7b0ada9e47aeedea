"""The broker of a single process, for tests and toys: the same promises, nothing outlives the process."""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from typing import Generic, TypeVar

from app.broker.attendance import Attendance
from app.broker.base import (
    NO_POSITION,
    USER_TTL,
    Attended,
    Broker,
    History,
    Member,
    Page,
    Position,
    Presence,
    Present,
    Sink,
)
from app.broker.stats import Stats
from app.codes import BAD_REQUEST, CommandError
from app.settings import Settings

Value = TypeVar("Value")


class _Expiring(Generic[Value]):
    """A map whose entries end some time after they were last set; expired ones are dropped as others are set."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, Value]] = OrderedDict()

    def set(self, key: str, value: Value, ttl: float) -> None:
        now = asyncio.get_running_loop().time()
        self._entries[key] = (now + ttl, value)
        self._entries.move_to_end(key)
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)

    def get(self, key: str) -> Value | None:
        until, value = self._entries.get(key, (0.0, None))
        return value if until > asyncio.get_running_loop().time() else None

    def pop(self, key: str) -> Value | None:
        value = self.get(key)
        self._entries.pop(key, None)
        return value


class MemoryBroker(Broker):
    """Positions, history and idempotency keys as in the redis broker."""

    shared = False

    def __init__(self, settings: Settings) -> None:
        self.stats = Stats()
        self._settings = settings
        self._rooms: set[str] = set()
        self._positions: _Expiring[Position] = _Expiring()
        self._histories: _Expiring[deque[tuple[int, bytes]]] = _Expiring()
        self._results: _Expiring[tuple[bytes, Position]] = _Expiring()
        self._kept: _Expiring[bytes] = _Expiring()
        self._users: dict[str, dict[str, float]] = {}
        self._revoked: dict[bytes, float] = {}
        self._attendances: dict[str, Attendance] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        self._loop = None

    async def subscribe(self, room: str) -> None:
        self._rooms.add(room)

    async def unsubscribe(self, room: str) -> None:
        self._rooms.discard(room)

    async def publish(
        self,
        room: str,
        envelope: bytes,
        *,
        history: History | None,
        idempotency_key: str | None = None,
        data: bytes | None = None,
    ) -> Position:
        said = envelope if data is None else data
        result_key = f"{room} {idempotency_key}"  # a room has no space in its name (P7)
        if idempotency_key is not None and (kept := self._results.get(result_key)) is not None:
            if kept[0] != said:
                self.stats.publish_errors += 1
                raise CommandError(BAD_REQUEST, "idempotency key was used with other data")
            return kept[1]
        position = NO_POSITION if history is None else self._append(room, history, envelope)
        if idempotency_key is not None:
            self._results.set(result_key, (said, position), self._settings.idempotency_ttl)
        self.stats.publishes += 1
        if self._loop is not None:
            self._loop.call_soon(self._deliver, room, position, envelope)
        return position

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
        top = self._top(room, history)
        kept = self._histories.get(room) or deque()
        found: list[tuple[int, bytes]] = []
        size = 0
        for offset, envelope in reversed(kept) if reverse else kept:
            if len(found) == limit:
                break
            if since is not None and (offset >= since if reverse else offset <= since):
                continue
            size += len(envelope)
            if found and 0 < max_bytes < size:
                return Page(top, found, cut=True)
            found.append((offset, envelope))
        return Page(top, found)

    async def send_control(self, message: bytes) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._sink.control, message)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self._kept.set(key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        return self._kept.pop(key)

    async def admit_user(self, user: str, session: str, limit: int) -> bool:
        now = asyncio.get_running_loop().time()
        sessions = {name: until for name, until in self._users.get(user, {}).items() if until > now}
        if session not in sessions and len(sessions) >= limit:
            return False
        self._users[user] = sessions | {session: now + USER_TTL}
        return True

    async def refresh_users(self, sessions: Collection[tuple[str, str]]) -> None:
        until = asyncio.get_running_loop().time() + USER_TTL
        for user, session in sessions:
            self._users.setdefault(user, {})[session] = until

    async def dismiss_user(self, user: str, session: str) -> None:
        sessions = self._users.get(user, {})
        sessions.pop(session, None)
        if not sessions:
            self._users.pop(user, None)

    async def revoke(self, entry: bytes, until: float, limit: int) -> bool:
        now = time.time()
        if entry not in self._revoked and sum(ends > now for ends in self._revoked.values()) >= limit:
            return False
        self._revoked[entry] = max(until, self._revoked.get(entry, 0.0))
        return True

    async def revoked(self) -> dict[bytes, float]:
        now = time.time()
        self._revoked = {entry: until for entry, until in self._revoked.items() if until > now}
        return dict(self._revoked)

    async def attend(
        self,
        room: str,
        presence: Presence,
        *,
        came: Sequence[Member] = (),
        went: Sequence[str] = (),
        whole: bool = False,
    ) -> Attended:
        now = asyncio.get_running_loop().time()
        attendance = self._attendances.setdefault(room, Attendance())
        attendance.enter(presence, now, came)
        attendance.leave(presence, now + (presence.leave_delay or 0), attendance.all_but(came) if whole else went)
        news = attendance.take_news(now)
        if news is not None and room in self._rooms and self._loop is not None:
            self._loop.call_soon(self._sink.presence_changed, room, news)
        if attendance.empty:
            del self._attendances[room]
        return attendance.attended(presence, now)

    async def present(self, room: str, presence: Presence, limit: int) -> Present:
        now = asyncio.get_running_loop().time()
        return self._attendances.get(room, Attendance()).present(presence, now, limit)

    @property
    def echo_age(self) -> float:
        return 0.0

    @property
    def connected(self) -> bool:
        return self._loop is not None

    def _top(self, room: str, history: History) -> Position:
        """The newest position; a room without one begins an epoch, without the history of an earlier one (P2)."""
        top = self._positions.get(room)
        if top is None:
            top = Position(secrets.token_hex(6), 0)
            self._histories.pop(room)
        self._positions.set(room, top, history.meta_ttl)
        return top

    def _append(self, room: str, history: History, envelope: bytes) -> Position:
        top = self._top(room, history)
        position = Position(top.epoch, top.offset + 1)
        kept = self._histories.get(room) or deque()
        kept.append((position.offset, envelope))
        while len(kept) > history.size:
            kept.popleft()
        self._histories.set(room, kept, history.ttl)
        self._positions.set(room, position, history.meta_ttl)
        return position

    def _deliver(self, room: str, position: Position, envelope: bytes) -> None:
        if room in self._rooms:
            self.stats.received += 1
            self._sink.publication(room, position, envelope)
