"""Gaps in what a node has heard: fetched from history and delivered before anything later (R2)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from app.broker.base import BrokerUnavailable, Position
from app.gateway.delivery import Delivery
from app.gateway.replay import Replay
from app.gateway.room import Room
from app.telemetry import logs
from app.telemetry.counters import Counters
from app.telemetry.logs import Limited

log = Limited(logs.get("repair"))

#: How many rooms are repaired at once: after an outage all of them are to be.
AT_ONCE = 32

#: Seconds between two tries while the broker does not answer.
PAUSE = 0.5

#: Seconds before the next read where the last one has brought nothing new and something else was heard meanwhile.
SHORT_PAUSE = 0.02

#: What may come meanwhile in one room, in bytes; above it, history is read once more.
BUFFER_BYTES = 1_048_576


class Repairs:
    """The rooms of a node that are being repaired. `read` gives what came after an offset, `deliver` writes to members,
    `give_up` tells them that something is missing, and goes on after a position."""

    def __init__(
        self,
        read: Callable[[Room, int], Awaitable[Replay]],
        deliver: Callable[[Room, Delivery], None],
        give_up: Callable[[Room, Position], None],
        counters: Counters,
    ) -> None:
        self._read = read
        self._deliver = deliver
        self._give_up = give_up
        self._counters = counters
        self._tasks: dict[Room, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def begin(self, room: Room) -> None:
        """From now on what is heard waits (`hold`) until the gap is filled. Does nothing the second time."""
        if room not in self._tasks:
            room.drop_held()
            self._tasks[room] = asyncio.ensure_future(self._repair(room))

    def miss(self, room: Room) -> None:
        """A publication came that cannot be read: history will not explain it either, and members are told (P6)."""
        self.begin(room)
        room.held_too_much = True

    def hold(self, room: Room, delivery: Delivery) -> None:
        """A publication that came while its room is being repaired."""
        assert room.held is not None
        room.held.append(delivery)
        room.held_bytes += len(delivery.publication.data)
        if room.held_bytes > BUFFER_BYTES:
            room.drop_held()  # history has them, and is read again
            room.held_too_much = True

    async def _repair(self, room: Room) -> None:
        """Reads until nothing was missed since the last read was sent. What was heard before that is in it, or belongs
        to another history, and need not be kept."""
        try:
            while (room.members or room.waiting) and room.top is not None:
                pause = PAUSE
                async with self._turns:  # who waits for a broker that does not answer lets others go on
                    room.drop_held()
                    with contextlib.suppress(BrokerUnavailable):
                        replay = await self._read(room, room.top.offset)
                        before = room.top
                        if replay.era == room.era and self._fill(room, replay):
                            break
                        # Nothing new: two histories at once, one of them will be over.
                        pause = SHORT_PAUSE if room.top == before else 0
                if pause:
                    await asyncio.sleep(pause)
        finally:
            # In one step: a gap that is found from here on begins anew.
            room.held = None
            del self._tasks[room]

    def _fill(self, room: Room, replay: Replay) -> bool:
        """Delivers what was read and then what came meanwhile. False: there is a gap again."""
        assert room.top is not None
        missed = replay.after(room.top)
        if missed is None:
            log.warning("history.insufficient", namespace=room.namespace)
            self._counters.repairs["insufficient"] += 1
            if replay.top.epoch != room.top.epoch:
                # Members go on at the beginning of the history that there is now, which is read next.
                self._give_up(room, Position(replay.top.epoch, 0))
                return False
            missed = replay.deliveries
            start = missed[0].position.offset - 1 if missed else replay.top.offset
            self._give_up(room, Position(replay.top.epoch, start))
        elif missed:
            self._counters.repairs["repaired"] += 1
        held, too_much = room.held or [], room.held_too_much
        for delivery in (*missed, *held):
            if not room.follows(delivery.position):
                return False
            if room.hear(delivery.position):
                self._deliver(room, delivery)
        return not (too_much or replay.has_more)

    async def close(self) -> None:
        """Ends what is under way."""
        for task in tuple(self._tasks.values()):
            task.cancel()
