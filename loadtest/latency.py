"""A publication's way from its send time, which stands in it, to its receiver, by the clock of the machine."""

from dataclasses import dataclass

DELIVERY, CATCH_UP = "delivery", "catch-up"


@dataclass(frozen=True)
class Latency:
    """`early`: it came before it was sent, as two clocks differ; then `ms` is 0."""

    kind: str
    ms: float
    early: bool = False


def measure(sent: float, received: float, back_since: float) -> Latency:
    """Times of `time.time()`. `back_since`: when a client that had been away was in its room again, 0: it never was.

    What was sent before that waited for the client, not for the server: it is a catch-up."""
    ms = (received - sent) * 1000
    kind = CATCH_UP if sent < back_since else DELIVERY
    return Latency(kind, max(ms, 0.0), ms < 0)


class Pace:
    """Even moments, the first one at `first`; one that is late does not move the next ones."""

    def __init__(self, every: float, first: float) -> None:
        self._every = every
        self._due = first

    def wait(self, now: float) -> float:
        """Seconds until the next one; 0 where it is due already."""
        due = self._due
        self._due += self._every
        return max(due - now, 0.0)
