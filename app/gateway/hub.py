"""Rooms and their local members: joining, leaving, and the fan-out of one node."""

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app import native
from app.broker.base import NO_POSITION, Broker, BrokerUnavailable, History, Position
from app.gateway.delivery import Delivery, joined
from app.gateway.laggards import Laggards, client_key
from app.gateway.naming import namespace_of
from app.gateway.outbox import Entry
from app.gateway.position_check import PositionCheck
from app.gateway.presence import Presence
from app.gateway.registry import Registry
from app.gateway.repair import Repairs
from app.gateway.replay import Replay, SharedReads, portions
from app.gateway.room import JOINING_LIMIT, Room
from app.gateway.shortfall import Shortfalls
from app.settings import Namespace, Settings, SlowConsumer
from app.telemetry import logs
from app.telemetry.counters import Counters
from app.telemetry.logs import Limited
from app.wire.messages import Event, PresenceChange
from app.wire.plain import FORMATS
from app.wire.publication import unpack
from app.wire.versioned import UnknownVersion

if TYPE_CHECKING:
    from app.gateway.session import Session

log = Limited(logs.get("hub"))

#: Tells a joiner where it begins, and whether what it missed follows (None: it did not ask).
Reply = Callable[[Position, bool | None], None]

#: How often a read is tried again that was cut for the sake of somebody who needed more.
REPLAY_TRIES = 3


class Hub:
    """All rooms that have members on this node."""

    def __init__(
        self, settings: Settings, broker: Broker, registry: Registry, counters: Counters, presence: Presence
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._presence = presence
        self._registry = registry
        self._counters = counters
        self.rooms: dict[str, Room] = {}
        self.laggards = Laggards()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._repairs = Repairs(self._read, self._deliver, self._begin_anew, counters)
        self._shortfalls = Shortfalls(settings.insufficient_spread, self._tell_insufficient)
        self.position_check = PositionCheck(self.rooms, self._read, self._missed, settings.position_check)
        #: The send loop in C; None: it was not built, or is not wanted.
        self._send = native.load() if settings.native_send else None

    # -- joining and leaving

    async def join(
        self, session: "Session", name: str, options: Namespace, reply: Reply, since: Position | None = None
    ) -> None:
        """Makes the session a member. `reply` is called just before any publication of the room can follow it (O3).

        With `since`, what came after that position follows the reply, if all of it is still there and not too much
        (R3). Raises BrokerUnavailable. A session that ends meanwhile is not added."""
        room = await self._subscribed(name, options)
        try:
            replay = None
            if options.history_size:
                replay = await self._replay(room, session, since)
            if session.ended:
                return
            missed = room.joining.pop(session, []) if room.joining else []
            self._take_in(room, session, reply, since, replay, missed)
        finally:
            room.waiting -= 1
            if room.joining is not None:
                room.joining.pop(session, None)
                room.joining = room.joining or None
            if room.joining is None:
                room.reads = None
            self._release_if_empty(room)

    def join_at_once(self, session: "Session", name: str, options: Namespace, reply: Reply) -> bool:
        """The same without waiting, where the node hears the room already and keeps no positions; else False."""
        room = self.rooms.get(name)
        if room is None or not room.subscribed or options.history_size:
            return False
        self._take_in(room, session, reply)
        return True

    def _take_in(
        self,
        room: Room,
        session: "Session",
        reply: Reply,
        since: Position | None = None,
        replay: Replay | None = None,
        missed: Sequence[Delivery] = (),
    ) -> None:
        self.flush(room)
        past = None
        if since is not None and replay is not None:
            past = replay.all_after(since, self._replayed_to(session))
            self._counters.recoveries["recovered" if past is not None else "not recovered"] += 1
        top = NO_POSITION if replay is None else replay.top
        # What a client has is what it can come back with: the replay is not with it yet.
        reply(since if past is not None and since is not None else top, None if since is None else past is not None)
        if not session.ended:  # by the reply: its outbox was full
            self._add(room, session, top, past or (), missed)

    def _replayed_to(self, session: "Session") -> int:
        """The most that is replayed to a client, in bytes (R3)."""
        assert session.claims is not None
        client = client_key(session.claims.user, session.address)
        given_up = self.laggards.given_up(client, asyncio.get_running_loop().time())
        return 0 if given_up else self._settings.outbox_bytes // 2

    async def _subscribed(self, name: str, options: Namespace) -> Room:
        """The room, when the broker has confirmed its subscription. Its `waiting` is one higher (R1)."""
        leaving = self._leaving.get(name)
        if leaving is not None:
            await asyncio.wait((leaving,))
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = Room(name, namespace_of(name), options)
        room.waiting += 1
        try:
            if not room.subscribed:
                await self._subscription(room)
        except BaseException:
            room.waiting -= 1
            self._release_if_empty(room)
            raise
        return room

    async def _subscription(self, room: Room) -> None:
        """Waits until the broker has confirmed it; the first who waits asks for it, the next after a failure again."""
        asked = room.ready
        if asked is None:
            asked = room.ready = asyncio.ensure_future(self._broker.subscribe(room.name))
        try:
            await asyncio.shield(asked)
            room.subscribed = True
        finally:
            if asked.done() and room.ready is asked:
                room.ready = None

    async def _replay(self, room: Room, session: "Session", since: Position | None) -> Replay:
        """Reads the room's history while the joiner's publications are collected (R1)."""
        if room.joining is None:
            room.joining = {}
        for left in reversed(range(REPLAY_TRIES)):
            # What was heard before the read is sent is in it, or belongs to another history.
            room.joining[session] = []
            if room.reads is None:
                room.reads = SharedReads(partial(self._read, room))
            offset = None if since is None else since.offset
            # The last one is its own: each shared one may be cut for another who needs too much.
            alone = offset is not None and not left
            replay = await (self._read(room, offset) if alone else room.reads.get(offset))
            if replay.era == room.era and (since is None or not replay.cut_for_another(since)):
                break
        if replay.era != room.era:
            raise BrokerUnavailable("the room's history changes all the time")
        if room.top is None:
            room.top = replay.top
        elif room.top.epoch != replay.top.epoch:
            self._begin_anew(room, Position(replay.top.epoch, 0))
            replay.era = room.era  # it begins with this read: others may share it
            self._repairs.begin(room)
        return replay

    async def _read(self, room: Room, since: int | None) -> Replay:
        """What came after an offset; None: only the newest position. Raises BrokerUnavailable."""
        limit, era = 0 if since is None else room.options.history_size, room.era
        page = await self._broker.read(
            room.name,
            self.history_of(room.options),
            since=since,
            limit=limit,
            max_bytes=self._settings.outbox_bytes,
        )
        return Replay.of(room.name, page, era, deflate_from=self._settings.compression_min_bytes)

    def _add(
        self,
        room: Room,
        session: "Session",
        top: Position,
        past: Sequence[Delivery],
        missed: Sequence[Delivery],
    ) -> None:
        room.members.add(session)
        room.dirty = True
        session.rooms[room.name] = room
        if room.options.presence and session.claims is not None:
            self._presence.joined(room.name, room.options, session.id, session.claims.user)
        for some in portions(past):
            if session.raw_write is not None:
                session.raw_write(joined(some, session.format, compressed=session.connection.compressed))
            else:
                for delivery in some:
                    self._deliver_one(room, session, delivery)
        if session.ended:  # by the replay: it has left
            return
        if room.top is not None and room.top.offset < top.offset:
            room.start_late(session, top.offset)
        elif len(missed) > JOINING_LIMIT:
            session.tell_insufficient(room)
            return
        for delivery in missed:  # of another epoch: that one had ended when the position was read
            if delivery.position.epoch == top.epoch and delivery.position.offset > top.offset:
                self._deliver_one(room, session, delivery)

    def leave(self, session: "Session", room: Room) -> None:
        """Takes a member out; nothing of this room is written to it afterwards."""
        self.flush(room)
        room.discard(session)
        session.rooms.pop(room.name, None)
        if room.options.presence:
            self._presence.left(room.name, session.id)
        self._release_if_empty(room)

    def _release_if_empty(self, room: Room) -> None:
        if room.empty and self.rooms.get(room.name) is room:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.unsubscribe_delay, self._release, room)

    def _release(self, room: Room) -> None:
        if room.empty and self.rooms.get(room.name) is room:
            del self.rooms[room.name]
            task = asyncio.ensure_future(self._broker.unsubscribe(room.name))
            self._leaving[room.name] = task
            task.add_done_callback(lambda _: self._leaving.pop(room.name, None))

    def history_of(self, options: Namespace) -> History:
        return History(options.history_size, options.history_ttl, self._settings.history_meta_ttl)

    # -- delivering

    def publication(self, name: str, position: Position, envelope: bytes) -> None:
        """A publication heard from the broker."""
        room = self.rooms.get(name)
        if room is None:
            return
        try:
            publication = unpack(envelope)
        except UnknownVersion as error:
            log.warning("publication.unreadable", error=str(error))
            self._counters.unreadable["publication"] += 1
            if position.offset and room.top is None:
                room.era += 1  # nobody has joined yet: who is about to reads again
            elif position.offset:
                self._repairs.miss(room)
            return
        self._counters.received[room.namespace] += 1
        if room.uninformed and not room.options.history_size:
            self._shortfalls.tell_all(room)  # what is withheld could not be read later
        delivery = Delivery(name, position, publication, deflate_from=self._settings.compression_min_bytes)
        if position.offset:
            if room.held is None and not room.follows(position):
                self._missed(room)
            if room.held is not None:
                self._repairs.hold(room, delivery)
                return
            if not room.hear(position):
                return
        self._deliver(room, delivery)

    def _deliver(self, room: Room, delivery: Delivery) -> None:
        if room.joining:
            for missed in room.joining.values():
                if len(missed) <= JOINING_LIMIT:
                    missed.append(delivery)
        window = self._window(room)
        if room.passing:
            room.wait_for_window(delivery)
        elif window:
            self._collect(room, delivery)
            if room.timer is None:
                room.timer = asyncio.get_running_loop().call_later(window / 1000, self._window_over, room)
        else:
            self._fan_out(room, [delivery])

    def _window(self, room: Room) -> int:
        """How long this publication waits for others, in milliseconds (O4)."""
        options = room.options
        if options.conflate_ms or not options.coalesce_ms or not options.coalesce_rate:
            return options.conflate_ms or options.coalesce_ms
        now = asyncio.get_running_loop().time()
        before, room.heard_at = room.heard_at, now
        in_window = room.timer is not None
        return options.coalesce_ms if in_window or (now - before) * options.coalesce_rate < 1 else 0

    def _collect(self, room: Room, delivery: Delivery) -> None:
        """Adds to the window; with `conflate_ms` an older publication with the same key gives way."""
        key = delivery.publication.key
        pending = room.pending
        if room.options.conflate_ms and key is not None and pending:
            for index, older in enumerate(pending):
                if older.publication.key == key:
                    del pending[index]
                    heir = pending[index] if index < len(pending) else delivery
                    heir.skipped += older.skipped + 1
                    self._counters.skipped["conflate_window"] += 1
                    break
        room.wait_for_window(delivery)

    def _window_over(self, room: Room) -> None:
        room.timer = None
        if not room.passing:
            self._send_pending(room)

    def _send_pending(self, room: Room) -> None:
        pending, room.pending = room.pending, None
        if pending:
            self._fan_out(room, pending)

    def flush(self, room: Room) -> None:
        """Ends the current window and the current pass: before every control message about the room (O4, O5)."""
        if room.timer is not None:
            room.timer.cancel()
            room.timer = None
        while room.passing or room.pending:
            if room.passing:
                self._write_some(room, sys.maxsize)
            else:
                self._send_pending(room)

    def _fan_out(self, room: Room, deliveries: Sequence[Delivery]) -> None:
        """Writes to every member: the shared bytes where nothing stands against it, else one by one."""
        if room.dirty:
            room.rebuild()
        self._counters.deliveries[room.namespace] += len(room.members) * len(deliveries)
        apart = {*self._senders(room, deliveries), *(room.skipped or ()), *(room.late or ())}
        passing = []
        for format, compressed, writers in room.writers:
            data = joined(deliveries, format, compressed=compressed)
            ranges = writers.around(apart) if apart else [(0, len(writers))]
            passing += [(writers, start, stop, data) for start, stop in ranges]
        room.passing = passing
        for session in {*room.others, *apart} if apart else room.others:
            for delivery in deliveries:
                self._deliver_one(room, session, delivery)
        room.sent(deliveries[-1].position.offset)
        self._write_some(room, self._settings.fanout_chunk)

    def _senders(self, room: Room, deliveries: Sequence[Delivery]) -> set["Session"]:
        """Members that published one of these and are not to hear it."""
        if room.options.echo:
            return set()
        ids = {delivery.publication.session for delivery in deliveries if delivery.publication.session}
        found = {self._registry.by_id.get(id) for id in ids}
        return {session for session in found if session is not None and session in room.members}

    def _write_some(self, room: Room, budget: int) -> None:
        """Goes on in the loop's next turn when `budget` members have been written to (O5).

        A member may have paused since the pass began: then only transports know what goes first."""
        while room.passing and budget > 0:
            (writers, start, end, data), *rest = room.passing
            stop = min(start + budget, end)
            room.passing = [(writers, stop, end, data), *rest] if stop < end else rest
            writers.write(None if room.paused else self._send, data, start, stop)
            budget -= stop - start
        if room.passing:
            asyncio.get_running_loop().call_soon(self._go_on, room)
        elif room.pending and room.timer is None:
            self._send_pending(room)

    def _go_on(self, room: Room) -> None:
        if room.passing:
            self._write_some(room, self._settings.fanout_chunk)

    def _deliver_one(self, room: Room, session: "Session", delivery: Delivery) -> None:
        """For a member that cannot take the shared bytes: it does not read, missed something, or is the publisher."""
        if session not in room.members:  # an earlier one of the same window was too much for it
            return
        if room.uninformed and session in room.uninformed:
            return
        if room.late and 0 < delivery.position.offset <= room.late.get(session, 0):
            return
        own = not room.options.echo and delivery.publication.session == session.id
        entry = Entry(delivery.frame(session.format), delivery, own, room.take_owed(session))
        if own and not delivery.position.offset:
            room.owe(session, entry.missed)
        else:
            session.deliver(entry, room.options.slow_consumer)

    def tell(self, name: str, event: Event) -> None:
        """Sends every member a control message about the room: after all that was published before it (O3)."""
        room = self.rooms.get(name)
        if room is None:
            return
        self.flush(room)
        if room.dirty:
            room.rebuild()
        frames = [format.frame(event) for format in FORMATS]
        room.passing = [(writers, 0, len(writers), frames[format.index].wire) for format, _, writers in room.writers]
        for session in (*room.others, *(room.uninformed or ())):
            session.deliver(Entry(frames[session.format.index]), SlowConsumer.DISCONNECT)
        self._write_some(room, self._settings.fanout_chunk)

    # -- what was missed

    def restored(self, names: Collection[str]) -> None:
        """The broker hears these rooms again; what came between is unknown (P1)."""
        for name in names:
            if (room := self.rooms.get(name)) is not None:
                room.era += 1
                self._missed(room)

    def _missed(self, room: Room) -> None:
        """Something was not heard: publications are read again (R2), who came and left has to be asked for anew."""
        if room.options.join_leave:
            self.tell(room.name, PresenceChange(room=room.name, resync=True))
        if not room.options.history_size:
            self.flush(room)
            self._shortfalls.note(room)
        elif room.top is not None:  # else nobody has joined yet
            self._repairs.begin(room)

    def _begin_anew(self, room: Room, top: Position) -> None:
        """Members have missed something that history does not have, and go on after `top`."""
        self.flush(room)
        room.begin_anew(top)
        self._shortfalls.note(room)

    def _tell_insufficient(self, room: Room, session: "Session") -> None:
        self.flush(room)
        session.tell_insufficient(room)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._repairs.close()
        for task in tuple(self._leaving.values()):
            task.cancel()
