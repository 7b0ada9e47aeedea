"""Gaps in what a node has heard: fetched from history and delivered before anything later (R2)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

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

#: How often history is read in vain: what was heard is in it, unless it was written by another primary.
TRIES = 3

#: What may come meanwhile in one room, in bytes; above it, its members are told that something is missing.
BUFFER_BYTES = 1_048_576


class Repairs:
    """The rooms of a node that are being repaired. `read` gives what came after an offset, `deliver` writes to members,
    `give_up` tells them that something is missing, and goes on after a position."""

    def __init__(
        self,
        read: Callable[[Room, int], Awaitable[Replay]],
        deliver: Callable[[Room, Delivery], None],
        give_up: Callable[[Room, Position | None], None],
        counters: Counters,
    ) -> None:
        self._read = read
        self._deliver = deliver
        self._give_up = give_up
        self._counters = counters
        self._tasks: dict[Room, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def begin(self, room: Room) -> None:
        """From now on what is heard waits (`Room.hold`) until the gap is filled. Does nothing the second time, but that
        the reading is done again: what came between may have been missed too."""
        if room.held is None:
            room.held = []
        if room in self._tasks:
            room.repair_again = True
        else:
            task = self._tasks[room] = asyncio.ensure_future(self._repair(room))
            task.add_done_callback(lambda _: self._tasks.pop(room, None))

    def hold(self, room: Room, delivery: Delivery) -> None:
        """A publication that came while its room is being repaired."""
        assert room.held is not None
        room.held.append(delivery)
        if sum(len(held.publication.data) for held in room.held) > BUFFER_BYTES:
            room.held.clear()  # history has them, and is read again; if not, members are told
            room.repair_again = True

    async def _repair(self, room: Room) -> None:
        async with self._turns:
            tries = 0
            while (room.members or room.waiting) and room.top is not None and tries < TRIES:
                room.repair_again = False
                before = room.top
                try:
                    replay = await self._read(room, before.offset)
                except BrokerUnavailable:
                    await asyncio.sleep(PAUSE)
                    continue
                if self._fill(room, replay) and not room.repair_again:
                    break
                tries = 0 if room.top != before else tries + 1
            else:
                self._go_on_without(room)
        room.held = None

    def _go_on_without(self, room: Room) -> None:
        """History does not explain what was heard: members are told, and go on with the last that follow each other."""
        if room.members:
            self._counters.repairs["insufficient"] += 1
        held, room.held = _unbroken_end(room.held or []), None
        first = held[0].position if held else None
        self._give_up(room, first and Position(first.epoch, first.offset - 1))
        for delivery in held:
            room.hear(delivery.position)
            self._deliver(room, delivery)

    def _fill(self, room: Room, replay: Replay) -> bool:
        """Delivers what was read and then what came meanwhile. False: there is a gap again."""
        assert room.top is not None
        before = room.top
        missed = replay.after(before)
        held, room.held = room.held or [], []
        if missed is None:
            log.warning("history.insufficient", namespace=room.namespace)
            self._counters.repairs["insufficient"] += 1
            missed = ()
            if replay.top.epoch != before.epoch:  # an epoch that is over has no successor of what was heard
                held = [delivery for delivery in held if delivery.position.epoch != before.epoch]
            self._give_up(room, _before(held, replay.top))
        elif missed:
            self._counters.repairs["repaired"] += 1
        for delivery in (*missed, *sorted(held, key=lambda one: one.position.offset)):
            if delivery.position.epoch != room.top.epoch or not room.follows(delivery.position):
                room.held.append(delivery)
            elif room.hear(delivery.position):
                self._deliver(room, delivery)
        return not room.held and not replay.cut

    async def close(self) -> None:
        """Ends what is under way."""
        for task in tuple(self._tasks.values()):
            task.cancel()


def _unbroken_end(held: Sequence[Delivery]) -> Sequence[Delivery]:
    """The last ones, as far as each follows the one before."""
    start = max(len(held) - 1, 0)
    while start > 0 and _next(held[start - 1].position) == held[start].position:
        start -= 1
    return held[start:]


def _next(position: Position) -> Position:
    return Position(position.epoch, position.offset + 1)


def _before(held: Sequence[Delivery], top: Position) -> Position:
    """Where members go on who were told that something is missing: what was heard of this history is not lost too."""
    offsets = [delivery.position.offset - 1 for delivery in held if delivery.position.epoch == top.epoch]
    return Position(top.epoch, min((*offsets, top.offset)))
