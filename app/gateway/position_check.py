"""Finds what no later publication shows: the lost last one of a quiet room (R2)."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from app.broker.base import BrokerUnavailable, Position
from app.gateway.replay import Replay
from app.gateway.room import Room

#: Rooms that are asked about at once.
BATCH = 100

#: Seconds that a publication may be under way to this node when the answer about its room is there already.
UNDER_WAY = 1.0


class PositionCheck:
    """Compares the position of each room with history with that of the broker, which also keeps its meta alive (P5).

    `read` gives a room's newest position, `repair` fetches what was missed."""

    def __init__(
        self,
        rooms: Mapping[str, Room],
        read: Callable[[Room, None], Awaitable[Replay]],
        repair: Callable[[Room], None],
        interval: float,
    ) -> None:
        """`interval`: seconds in which every room is looked at once."""
        self._rooms = rooms
        self._read = read
        self._repair = repair
        self._interval = interval

    async def run(self) -> None:
        """Goes round for ever, a batch at a time, evenly; nodes that started together do not ask together."""
        await asyncio.sleep(self._interval * random.random())
        while True:
            rooms = [room for room in self._rooms.values() if room.options.history_size]
            for start in range(0, len(rooms) or 1, BATCH):
                batch = rooms[start : start + BATCH]
                pause = self._interval * (len(batch) / len(rooms) if rooms else 1)
                ahead = await self._ahead(batch)
                wait = min(UNDER_WAY, pause)
                await asyncio.sleep(wait)
                for room, top in ahead:
                    if self._is_behind(room, top):
                        self._repair(room)
                await asyncio.sleep(pause - wait)

    async def _ahead(self, rooms: list[Room]) -> list[tuple[Room, Position]]:
        """Rooms of which the broker has something newer, and its position."""
        tops = await asyncio.gather(*map(self._top, rooms))
        return [(room, top) for room, top in zip(rooms, tops, strict=True) if top and self._is_behind(room, top)]

    async def _top(self, room: Room) -> Position | None:
        """None: there is nothing to compare, or a broker that is away, after which every room is repaired."""
        if not self._is_here(room):
            return None
        try:
            return (await self._read(room, None)).top
        except BrokerUnavailable:
            return None

    def _is_behind(self, room: Room, top: Position) -> bool:
        if not self._is_here(room) or room.top is None:
            return False
        return room.top.epoch != top.epoch or room.top.offset < top.offset

    def _is_here(self, room: Room) -> bool:
        """Whether it still has members, and a position that nobody is setting right already."""
        return self._rooms.get(room.name) is room and room.top is not None and room.held is None
