"""Measures how late the event loop is: who blocks it, delays every client of the node."""

import asyncio
import time
from collections import deque

from app.telemetry import metrics

INTERVAL = 0.25  # seconds between two measurements
WINDOW = 5.0  # seconds that a bad measurement is remembered


class LoopLag:
    """A timer that notes how much too late it is called. To be started and stopped in the loop that it measures."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=round(WINDOW / INTERVAL))
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst(self) -> float:
        """Longest delay in the last seconds; counts also one that has not ended yet."""
        pending = time.monotonic() - self._due if self._timer else 0.0
        return max(pending, 0.0, *self._recent)

    def start(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._measure)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _measure(self) -> None:
        self._recent.append(max(0.0, time.monotonic() - self._due))
        self.start()
        metrics.LOOP_LAG.set(self.worst)
