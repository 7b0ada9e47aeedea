"""Who is in the rooms of namespaces with `presence`: what this node says of its own members, and asks of all (A1)."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from app import codes
from app.broker.base import Broker, BrokerUnavailable, Member, Present
from app.broker.base import Presence as RoomPresence
from app.codes import CommandError
from app.gateway.naming import namespace_of
from app.settings import Namespace, Settings
from app.telemetry import logs
from app.telemetry.counters import Counters
from app.telemetry.logs import Limited
from app.wire.messages import PresenceChange
from app.wire.versioned import UnknownVersion, Versioned

log = Limited(logs.get("presence"))

#: Rooms that are refreshed at once; the batches are spread over a third of `presence_ttl`.
BATCH = 100

#: Joins and leaves within so many seconds are one message to the room.
NEWS_EVERY = 1.0


class _News(Struct):
    """What the broker tells of a room; written in lua/attend.lua."""

    joined: list[str] | UnsetType = UNSET
    left: list[str] | UnsetType = UNSET


#: Its version stands in lua/attend.lua too.
_news: Versioned[_News] = Versioned(_News, b"1")


class _Attendance:
    """This node's members of one room, and what the broker does not know of them yet."""

    __slots__ = ("changed", "members", "namespace", "presence", "telling", "timer", "whole")

    def __init__(self, namespace: str, presence: RoomPresence) -> None:
        self.namespace = namespace
        self.presence = presence
        self.members: dict[str, str] = {}  # session -> user
        #: Sessions that came or went since the broker was told.
        self.changed: set[str] = set()
        #: It has to be told of all members: at first, and after it could not be told of some change.
        self.whole = True
        self.telling: asyncio.Task[None] | None = None
        #: Until there is news to tell to the room.
        self.timer: asyncio.TimerHandle | None = None


class Presence:
    """All rooms with presence that have members here. A session in another room is never heard of here."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._spawn = spawn
        self._counters = counters
        #: Members on this node, by namespace.
        self.sessions: Counter[str] = Counter()
        self._rooms: dict[str, _Attendance] = {}
        self._hurry = asyncio.Event()

    # -- what happens here

    def joined(self, name: str, options: Namespace, session: str, user: str) -> None:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Attendance(namespace_of(name), self._presence_of(options))
        room.members[session] = user
        self.sessions[room.namespace] += 1
        room.changed.add(session)
        self._tell_soon(name, room)

    def left(self, name: str, session: str) -> None:
        room = self._rooms.get(name)
        if room is not None and room.members.pop(session, None) is not None:
            self.sessions[room.namespace] -= 1
            room.changed.add(session)
            self._tell_soon(name, room)

    def restored(self) -> None:
        """The broker is back, perhaps without memory: do not wait for the next refresh."""
        self._hurry.set()

    def close(self) -> None:
        for room in self._rooms.values():
            if room.timer is not None:
                room.timer.cancel()

    # -- telling the broker

    def _tell_soon(self, name: str, room: _Attendance) -> None:
        """One command at a time for each room: none overtakes another; what changes meanwhile goes with the next."""
        if room.telling is None:
            room.telling = self._spawn(self._tell(name, room))

    async def _tell(self, name: str, room: _Attendance) -> None:
        changed, room.changed = room.changed, set()
        whole, room.whole = room.whole, False
        came = room.members if whole else changed & room.members.keys()
        expected, told = len(room.members), False
        try:
            answer = await self._broker.attend(
                name,
                room.presence,
                came=[Member(room.members[session], session) for session in came],
                went=[] if whole else [session for session in changed if session not in room.members],
                whole=whole,
            )
        except BrokerUnavailable as error:
            room.whole = True  # with the next change or refresh
            self._counters.presence_errors[room.namespace] += 1
            log.warning("presence.not_told", reason=error.reason)
        else:
            told = True
            self._counters.presence_updates[room.namespace] += 1
            room.whole = not whole and answer.sessions != expected  # the broker has lost some, or kept some
            self._wait_for_news(name, room, answer.news_in)
        finally:
            room.telling = None
        if told and (room.changed or room.whole):
            self._tell_soon(name, room)
        elif not room.members and room.timer is None:
            # Where the broker was not told, it forgets this node's members by itself.
            self._rooms.pop(name, None)

    def _wait_for_news(self, name: str, room: _Attendance, news_in: float | None) -> None:
        if room.timer is not None:
            room.timer.cancel()
            room.timer = None
        if news_in is not None:
            room.timer = asyncio.get_running_loop().call_later(news_in, self._news_due, name, room)

    def _news_due(self, name: str, room: _Attendance) -> None:
        room.timer = None
        self._tell_soon(name, room)

    async def run(self) -> None:
        """Refreshes all rooms, a batch at a time, three times within `presence_ttl`."""
        while True:
            self._hurry.clear()
            names = list(self._rooms)
            for start in range(0, len(names) or 1, BATCH):
                batch = names[start : start + BATCH]
                await asyncio.gather(*(self._refresh(name) for name in batch))
                pause = self._settings.presence_ttl / 3 * (len(batch) / len(names) if names else 1)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), pause)

    async def _refresh(self, name: str) -> None:
        room = self._rooms.get(name)
        if room is not None:
            self._tell_soon(name, room)
            await self._told(room)

    async def _told(self, room: _Attendance) -> None:
        if room.telling is not None:
            await asyncio.wait((room.telling,))

    # -- what is asked

    async def present(self, name: str, options: Namespace, limit: int | None) -> Present:
        """Who is in a room; at most `presence_page` of them by name. What happened on this node before is in it.

        Raises CommandError 108 where the namespace has no presence, BrokerUnavailable."""
        if not options.presence:
            raise CommandError(codes.NOT_AVAILABLE, "the namespace has no presence")
        room = self._rooms.get(name)
        if room is not None:
            await self._told(room)  # perhaps begun before the last change
            await self._told(room)
        page = self._settings.presence_page
        return await self._broker.present(name, self._presence_of(options), page if limit is None else min(limit, page))

    @staticmethod
    def change(room: str, news: bytes) -> PresenceChange | None:
        """What members are told; None for news of a release that this one does not know (P6)."""
        try:
            read = _news.unpack(news)
        except UnknownVersion as error:
            log.warning("presence.unreadable", error=str(error))
            return None
        return PresenceChange(room=room, joined=read.joined, left=read.left)

    def _presence_of(self, options: Namespace) -> RoomPresence:
        delay = self._settings.presence_leave_delay if options.join_leave else None
        return RoomPresence(self._settings.presence_ttl, delay, NEWS_EVERY)
