"""One client's state machine: a command comes in, replies and effects go out. Knows nothing of sockets."""

import asyncio
import contextvars
import dataclasses
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from app import codes
from app.auth.permissions import Claims
from app.codes import CloseCode, CommandError, Disconnect
from app.gateway.commands import COMMAND_NAMES, HANDLERS
from app.gateway.connection import LOST, Connection
from app.gateway.outbox import Entry, Outbox, Overflow
from app.gateway.room import Room
from app.settings import SlowConsumer
from app.telemetry import logs
from app.telemetry.logs import Limited
from app.wire.frames import Frame
from app.wire.messages import Error, Event, Goodbye, Insufficient, Ok, ServerPing, Unsubscribed, Welcome
from app.wire.plain import FORMATS, BadMessage, Format

if TYPE_CHECKING:
    from app.gateway.gateway import Gateway

log = Limited(logs.get("session"))

#: What may wait behind a command that is under way, before reading is paused (H2).
QUEUED_COMMANDS = 16
QUEUED_BYTES = 65_536

#: How long the outbox may take before `goodbye` (O3), in seconds.
FLUSH_TIMEOUT = 2.0

#: How far `connection_max_age` is from what it says, either way: who came together does not go together.
AGE_JITTER = 0.25

NEVER = float("inf")

#: Lets a session in, at once or by what has to be awaited. Raises CommandError, Disconnect.
Enter = Callable[["Session"], Coroutine[Any, Any, None] | None]

PINGS: tuple[Frame, ...] = tuple(format.frame(ServerPing()) for format in FORMATS)


class Session:
    """What is known of one connection, from the upgrade to its end. Lives in the event loop's thread."""

    __slots__ = (
        "__weakref__",
        "_awaiting_pong",
        "_close",
        "_deadline",
        "_ping_due",
        "_queue",
        "_queued_bytes",
        "_rate",
        "_retire_at",
        "_strikes",
        "_task",
        "_writable",
        "address",
        "alive",
        "changes",
        "claims",
        "connection",
        "counted",
        "edge",
        "ended",
        "format",
        "gateway",
        "hook_state",
        "hook_values",
        "id",
        "outbox",
        "path_room",
        "publish_rates",
        "raw_write",
        "rooms",
        "slot",
    )

    def __init__(
        self,
        gateway: "Gateway",
        connection: Connection,
        format: Format,
        path_room: str | None,
        hook_values: dict[str, dict[str, Any]] | None = None,
        edge: str = "",
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.gateway = gateway
        self.connection = connection
        self.address = connection.address
        #: The edge that it came through; empty: unknown.
        self.edge = edge
        self.format = format
        #: The room of `/ws/{room}`, until it is subscribed.
        self.path_room = path_room
        #: Who it is; None until credentials were verified.
        self.claims: Claims | None = None
        #: How often others have changed what it may do: what began under older rights must not end (A2).
        self.changes = 0
        self.rooms: dict[str, Room] = {}
        #: No command is taken and nothing is delivered any more.
        self.ended = False
        #: The user whose connection limit counts this session.
        self.counted: str | None = None
        #: What the hooks' dependencies gave at connect, by hook and parameter.
        self.hook_values = hook_values
        #: What the hooks keep here (Client.state).
        self.hook_state: dict[str, Any] | None = None
        #: States of the publish rates, by namespace; only where one is set.
        self.publish_rates: dict[str, float] | None = None

        #: Ready-made frames go here; None while this client needs a look (see Room.rebuild).
        self.raw_write: Callable[[bytes], None] | None = connection.raw_write
        self.outbox: Outbox | None = None
        self._writable = True
        #: The close code with which this session ends.
        self._close: CloseCode | None = None

        self._task: asyncio.Task[None] | None = None
        self._queue: deque[bytes] | None = None
        self._queued_bytes = 0
        self._rate = 0.0
        self._strikes = 0

        #: Anything came since the last ping.
        self.alive = True
        self._awaiting_pong = False
        self._ping_due = NEVER
        #: Credentials must have come, or the token runs out, or the flush ends: in the loop's time.
        self._deadline = NEVER
        #: When the connection has lasted long enough, in the loop's time.
        self._retire_at = NEVER
        self.slot = -1

    # -- life

    def open(self, enter: Enter | None) -> None:
        """Begins: `welcome` (A4), then the credentials of the upgrade, if there were any."""
        settings = self.gateway.settings
        now = self.gateway.now()
        self._deadline = now + settings.auth_timeout
        if settings.ping_interval:
            # The first ping at a random moment: no action on all connections at once (invariant 6).
            self._ping_due = now + settings.ping_interval * random.random()
        if settings.connection_max_age:
            self._retire_at = now + settings.connection_max_age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
        self.gateway.wheel.set(self, self._next_wake())
        self.send(Welcome(session=self.id, node=self.gateway.node, ping_interval=settings.ping_interval))
        if enter is not None:
            self._enter(enter)

    def _enter(self, enter: Enter) -> None:
        try:
            later = enter(self)
        except Exception as error:
            self._failed(None, error)
        else:
            if later is not None:
                self._start(None, later)

    def end(self, close: CloseCode, reason: str | None = None) -> None:
        """Says `goodbye` after what is queued, and closes. Does nothing the second time."""
        if self.ended:
            return
        self.ended = True
        self._close = close if reason is None else dataclasses.replace(close, reason=reason)
        self._leave_all()
        goodbye = Goodbye(code=close.code, reason=self._close.reason)
        if close.reconnect:
            goodbye.reconnect_in_ms = random.randrange(1000)
        frame = self.format.frame(goodbye)
        if self.outbox and close is not codes.SLOW:
            self.outbox.append(Entry(frame))
            self._deadline = self.gateway.now() + FLUSH_TIMEOUT
            self.gateway.wheel.set(self, self._deadline)
        else:
            self._drop_outbox()
            self.connection.send(frame)
            self._close_connection()

    def _close_connection(self) -> None:
        assert self._close is not None
        self.gateway.wheel.remove(self)
        self.connection.close(self._close.code, self._close.reason)

    def lost(self, code: int) -> None:
        """The connection is gone; breaks every cycle, so that reference counting frees the session (H4)."""
        if self.connection is LOST:
            return
        self.ended = True
        # First: whatever fails from here on, nobody writes to a descriptor that is another's soon.
        self._mark_rooms(None)
        self._leave_all()
        self._drop_outbox()
        self._queue = None
        self.gateway.wheel.remove(self)
        self.connection = LOST
        self.gateway.session_lost(self, self._close.code if self._close else code, self._task)

    def _leave_all(self) -> None:
        for room in tuple(self.rooms.values()):
            self.gateway.hub.leave(self, room)

    # -- what comes in

    def receive(self, payload: bytes, text: bool) -> None:
        """One message from the client. Commands are handled in order; a few wait, then reading is paused (H2)."""
        if self.ended:
            return
        self.alive = True
        if text is not self.format.text:
            self.end(codes.UNSUPPORTED_DATA)
        elif self._task is None:
            self._handle(payload)
        else:
            self._enqueue(payload)

    def _enqueue(self, payload: bytes) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(payload)
        self._queued_bytes += len(payload)
        if self._congested():
            self.connection.pause_reading()

    def _congested(self) -> bool:
        return self._queue is not None and (len(self._queue) >= QUEUED_COMMANDS or self._queued_bytes >= QUEUED_BYTES)

    def _handle(self, payload: bytes) -> None:
        """Carries out one command, or begins to. Catches everything (H2)."""
        id = None
        try:
            self._check_rate()
            command = self.format.decode(payload)
            id = command.id
            self.gateway.counters.messages[COMMAND_NAMES[type(command)]] += 1
            later = HANDLERS[type(command)](self, command)
            if later is not None:
                self._start(id, later)
        except BadMessage as error:
            self.gateway.counters.messages["invalid"] += 1
            self.fail(error.id, error)
        except Exception as error:
            self._failed(id, error)

    def _check_rate(self) -> None:
        rate = self.gateway.message_rate.next_state(self._rate, self.gateway.now())
        if rate is not None:
            self._rate = rate
            self._strikes = max(0, self._strikes - 1)
            return
        self._strikes += 1
        self.gateway.counters.limit_hits["message_rate"] += 1
        if self._strikes > self.gateway.settings.message_burst:
            raise Disconnect(codes.TOO_MANY_MESSAGES)
        raise CommandError(codes.TOO_MANY_REQUESTS)

    def _start(self, id: int | str | None, work: Coroutine[Any, Any, None]) -> None:
        """Runs what has to wait, in a context of its own (H1); commands that come meanwhile are queued."""
        self._task = self.gateway.spawn(self._finish(id, work), context=contextvars.Context())

    async def _finish(self, id: int | str | None, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._failed(id, error)
        finally:
            self._task = None
            self._handle_queued()

    def _handle_queued(self) -> None:
        congested = self._congested()
        while self._queue and self._task is None and not self.ended:
            payload = self._queue.popleft()
            self._queued_bytes -= len(payload)
            self._handle(payload)
        if congested and not self._congested():
            self.connection.resume_reading()
        if not self._queue:
            self._queue = None

    def _failed(self, id: int | str | None, error: Exception) -> None:
        """Answers with the error, or ends the session; what nobody expected is one log line and 3004 (H2)."""
        match error:
            case CommandError():
                self.fail(id, error)
            case Disconnect():
                self.end(error.close, error.reason)
            case _:
                log.error("session.crashed", session=self.id, exc_info=error)
                self.end(codes.SERVER_ERROR)

    def authenticated(self) -> Claims:
        """The claims. Raises CommandError 101 before `auth`, and 109 from the moment that the token ran out (A2)."""
        claims = self.claims
        if claims is None:
            raise CommandError(codes.UNAUTHORIZED)
        if claims.expires_at is not None and time.time() >= claims.expires_at:
            raise CommandError(codes.TOKEN_EXPIRED)
        return claims

    # -- what goes out

    def send(self, event: Event) -> None:
        """A control message: after everything that was sent or queued before it (O3)."""
        self._send_frame(self.format.frame(event))

    def _send_frame(self, frame: Frame) -> None:
        if not self.ended:
            self.deliver(Entry(frame), SlowConsumer.DISCONNECT)

    def ok(self, id: int | str | None, **fields: Any) -> None:
        self.send(Ok(id=UNSET if id is None else id, **fields))

    def fail(self, id: int | str | None, error: CommandError) -> None:
        code = error.error
        self.gateway.counters.errors[code.code] += 1
        self.send(Error(id=UNSET if id is None else id, code=code.code, reason=error.reason, temporary=code.temporary))

    def deliver(self, entry: Entry, policy: SlowConsumer) -> None:
        """Hands an entry to the connection, or queues it while the client does not read."""
        if self.ended:
            return
        if self._writable and not self.outbox:
            self.connection.send(entry.rendered(self.format))
            return
        if self.outbox is None:
            self.outbox = Outbox(self.gateway.settings.outbox_bytes)
            self.gateway.slow.add(self)
        try:
            dropped = self.outbox.push(entry, policy)
        except Overflow:
            self.gateway.counters.slow_consumers[policy] += 1
            self.gateway.too_slow(self)
            self.end(codes.SLOW)
        else:
            if dropped:
                self.gateway.counters.skipped[policy] += dropped

    def pause_writing(self) -> None:
        """The transport holds enough. May be called inside a fan-out, so it only marks (O5)."""
        self._writable = False
        self._mark_rooms(None)

    def resume_writing(self) -> None:
        self._writable = True
        if self.outbox is not None:
            self._drain_outbox(self.outbox)
        if self._writable and self.outbox is None and not self.ended:
            self._mark_rooms(self.connection.raw_write)

    def _drain_outbox(self, outbox: Outbox) -> None:
        for entry in outbox.pop_all():
            self.connection.send(entry.rendered(self.format))
            if not self._writable:
                return
        owed = outbox.owed
        self._drop_outbox()
        for name, skipped in owed.items():
            if name in self.rooms:
                self.rooms[name].owe(self, skipped)
        if self.ended:
            self._close_connection()

    def _drop_outbox(self) -> None:
        self.outbox = None
        self.gateway.slow.discard(self)

    def _mark_rooms(self, raw_write: Callable[[bytes], None] | None) -> None:
        self.raw_write = raw_write
        for room in self.rooms.values():
            room.dirty = True
            room.paused = room.paused or raw_write is None

    def tell_insufficient(self, room: Room) -> None:
        """Something of the room was missed; what follows begins after the position that is told."""
        if room.top is None:
            self.send(Insufficient(room=room.name))
        else:
            self.send(Insufficient(room=room.name, epoch=room.top.epoch, offset=room.top.offset))

    def unsubscribe(self, room: Room, close: CloseCode | None = None) -> None:
        """Leaves a room with what is queued for it (O3); with `close` the client is told why."""
        self.gateway.hub.leave(self, room)
        if self.outbox is not None:
            self.outbox.forget_room(room.name)
        if close is not None:
            self.send(Unsubscribed(room=room.name, code=close.code, reason=close.reason))

    # -- time

    def identified(self, claims: Claims) -> None:
        """Takes new claims. A token that expires is followed by a close somewhat later, never before `exp` (A2)."""
        if self.ended:  # its deadline is that of the flush (O3)
            return
        self.claims = claims
        self._deadline = NEVER
        if claims.expires_at is not None:
            spread = random.random() * self.gateway.settings.expiry_spread
            self._deadline = self.gateway.now() + claims.expires_at - time.time() + spread
        self.gateway.wheel.set(self, self._next_wake())

    def on_timer(self, now: float) -> float | None:
        """The wheel's call. Never raises: everybody's heartbeat depends on it."""
        if self.ended:
            if self.outbox is not None:  # the flush before `goodbye` took too long (O3)
                self._drop_outbox()
                self._close_connection()
            return None
        if now >= self._deadline:
            self.end(codes.STALE if self.claims is None else codes.SESSION_EXPIRED)
        elif now >= self._ping_due:
            self._heartbeat()
        elif now >= self._retire_at:
            self._retire_at = NEVER
            self.gateway.rebalance.retire(self)
        return None if self.ended else self._next_wake()

    def _heartbeat(self) -> None:
        """In turn: a ping, and the look whether anything came since."""
        settings = self.gateway.settings
        if not self._awaiting_pong:
            self._awaiting_pong, self.alive = True, False
            self._ping_due += settings.pong_timeout
            self._send_frame(PINGS[self.format.index])
        elif self.alive:
            self._awaiting_pong = False
            self._ping_due += settings.ping_interval - settings.pong_timeout
        else:
            self.end(codes.NO_PONG)

    def _next_wake(self) -> float:
        return min(self._deadline, self._ping_due, self._retire_at)
