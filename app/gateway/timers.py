"""One timer wheel for every connection of a node: no timer and no task of their own."""

import asyncio
import math
from typing import Protocol

#: Seconds between two turns; a deadline fires at most this much late.
TICK = 0.1


class Timed(Protocol):
    #: The wheel's own mark: in which slot this stands.
    slot: int

    def on_timer(self, now: float) -> float | None:
        """Called at or just after the time asked for; returns the next one, or None for no more."""


class TimerWheel:
    """Keeps each item in at most one slot. Times are those of the event loop, in seconds."""

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._slots: dict[int, set[Timed]] = {}
        self._turned = 0

    def set(self, item: Timed, at: float) -> None:
        """Moves the item to `at`; there is no second entry. Infinity: never."""
        self.remove(item)
        slot = at / self._tick
        if slot == math.inf:
            return
        item.slot = max(int(slot) + 1, self._turned + 1)
        self._slots.setdefault(item.slot, set()).add(item)

    def remove(self, item: Timed) -> None:
        slot = self._slots.get(item.slot)
        if slot is not None:
            slot.discard(item)

    def turn(self, now: float) -> None:
        """Fires everything that is due."""
        target = int(now / self._tick)
        due = [slot for slot in range(self._turned + 1, target + 1) if slot in self._slots] if self._slots else []
        self._turned = target
        for slot in due:
            for item in self._slots.pop(slot):
                again = item.on_timer(now)
                if again is not None:
                    self.set(item, again)

    async def run(self) -> None:
        """Turns for ever, with the event loop's clock."""
        loop = asyncio.get_running_loop()
        self._turned = int(loop.time() / self._tick) - 1
        while True:
            self.turn(loop.time())
            await asyncio.sleep(self._tick)
