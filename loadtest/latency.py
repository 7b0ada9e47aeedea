"""A publication's way from the moment it was due, which stands in it, to its receiver, by the clock of the machine."""

from dataclasses import dataclass

DELIVERY, CATCH_UP = "delivery", "catch-up"


@dataclass(frozen=True)
class Latency:
    """`early`: it came before it was sent, as two clocks differ; then `ms` is 0."""

    kind: str
    ms: float
    early: bool = False


def measure(sent: float, late: float, received: float, back_since: float) -> Latency:
    """Times of `time.time()`. `back_since`: when a client that had been away was in its room again, 0: it never was.

    `late`: seconds that it was sent after it was due. A publisher waits for its last answer, so a server that stands
    still would else be asked only once meanwhile, and all that it kept waiting would not count.
    What was sent before `back_since` waited for the client, not for the server: it is a catch-up."""
    ms = (received - sent) * 1000
    kind = CATCH_UP if sent < back_since else DELIVERY
    return Latency(kind, max(ms, 0.0) + late * 1000, ms < 0)


class Pace:
    """Even moments, the first one at `first`; one that is late does not move the next ones."""

    def __init__(self, every: float, first: float) -> None:
        self._every = every
        self._due = self._next = first

    def wait(self, now: float) -> float:
        """Seconds until the next one; 0 where it is due already."""
        self._due = self._next
        self._next += self._every
        return max(self._due - now, 0.0)

    def late(self, now: float) -> float:
        """Seconds since the moment that was waited for last."""
        return max(now - self._due, 0.0)

    def missed(self, now: float) -> int:
        """How many moments have passed that nobody came to, this last one included."""
        return int((now - self._due) // self._every) + 1 if now >= self._due else 0
