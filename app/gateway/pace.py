"""How many of those that remain are due now, so that they go evenly and the last one goes in time (N6)."""

#: Time that counts at most between two looks, in seconds: after a stall the rate rises a little, and nothing bursts.
LONGEST_STEP = 0.1


class Pace:
    """Times are those of any one clock, in seconds. Asked at each tick, it spreads what remains over the time left."""

    def __init__(self, began: float, end: float, slowest: float) -> None:
        """All are due at `end`; `slowest`: per second, the rate that it does not fall below while some remain."""
        self._looked = began
        self._end = end
        self._slowest = slowest
        #: What is due of the next one; below 1.
        self._part = 0.0

    def due(self, remaining: int, now: float) -> int:
        """How many of `remaining` are to go now; to be called again with the rest."""
        left = self._end - now
        if left <= 0:
            return remaining
        step = min(now - self._looked, LONGEST_STEP)
        self._looked = now
        rate = max(self._slowest, (remaining - self._part) / (left + step))
        due, self._part = divmod(self._part + rate * step, 1)
        return min(int(due), remaining)
