"""Rate limits that cost one number each: the generic cell rate algorithm (ITU-T I.371)."""


class Rate:
    """`per_second` events, `burst` of them at once; 0 per second: no limit.

    The state of one limited thing is the time at which its bucket is full again, a float that the owner keeps."""

    __slots__ = ("_interval", "_tolerance")

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second if per_second > 0 else 0.0
        # A little more than that: what is added to the clock's time is rounded, maybe always up.
        self._tolerance = self._interval * (burst + 0.001)

    def next_state(self, state: float, now: float) -> float | None:
        """The state after one more event at `now`, or None where the limit forbids it. Begins with state 0."""
        after = max(state, now) + self._interval
        return None if after - now > self._tolerance and self._interval else after
