"""What clients noticed of a fault, from their journals alone: pauses, moves, the rate at which they came back."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tests.chaos.records import Closed, Event, Heard, Opened

#: Close code of a drain.
SHUTDOWN = 3001

#: Seconds of one column of the plot.
COLUMN = 0.25


@dataclass(frozen=True)
class Figures:
    """Times in seconds."""

    #: The longest time in which a client heard nothing.
    worst_pause: float
    #: The longest time from the end of a connection until the client was in all of its rooms again.
    worst_absence: float
    #: How often each client came back.
    moves_median: float
    moves_most: int
    #: Clients that came back in the busiest second, and in the busiest second if a drain's closes were even.
    peak_rate: int
    planned_rate: float
    deliveries: int


def figures(journals: Mapping[str, Sequence[Event]], *, closes: float) -> Figures:
    """`closes`: seconds that a pod's drain spreads its closes over."""
    moves = [sum(isinstance(event, Opened) for event in journal) for journal in journals.values()]
    drained = Counter(
        pod_of(event.node)
        for journal in journals.values()
        for event in journal
        if isinstance(event, Closed) and event.code == SHUTDOWN
    )
    return Figures(
        worst_pause=max(map(_pause, journals.values())),
        worst_absence=max(map(_absence, journals.values())),
        moves_median=median(moves),
        moves_most=max(moves),
        peak_rate=busiest(_moments(journals, Opened)),
        planned_rate=max(drained.values(), default=0) / closes,
        deliveries=len(_moments(journals, Heard)),
    )


def _moments(journals: Mapping[str, Sequence[Event]], kind: type) -> list[float]:
    return sorted(event.at for journal in journals.values() for event in journal if isinstance(event, kind))


def _pause(journal: Sequence[Event]) -> float:
    heard = [event.at for event in journal if isinstance(event, Heard)]
    return max((later - sooner for sooner, later in pairwise(heard)), default=0.0)


def _absence(journal: Sequence[Event]) -> float:
    longest, gone = 0.0, None
    for event in journal:
        if isinstance(event, Closed):
            gone = event.at
        elif isinstance(event, Opened) and gone is not None:
            longest, gone = max(longest, event.at - gone), None
    return longest


def busiest(moments: Sequence[float], seconds: float = 1.0) -> int:
    """The most of these sorted moments within so many seconds."""
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] < moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def columns(journals: Mapping[str, Sequence[Event]], began: float) -> list[tuple[float, float]]:
    """Deliveries per second over time, from `began` on: (seconds, rate)."""
    found: Iterable[int] = (int((moment - began) // COLUMN) for moment in _moments(journals, Heard))
    counts = Counter(found)
    span = range(min(counts, default=0), max(counts, default=0) + 1)
    return [(column * COLUMN, counts[column] / COLUMN) for column in span]


def pod_of(node: str) -> str:
    """`pod-2` of `pod-2-1-k3j`."""
    return node.rsplit("-", 2)[0]
