"""What a run counted beside Locust's own statistics: added up over clients and processes, and judged."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.checker import Findings


@dataclass
class Figures(Findings):
    """Counts, but for `lag_ms` and `late_ms`: of all clients' findings, and of what led to them."""

    clients: int = 0
    #: Clients that said at the end what they have; those that were not there to say it.
    settled: int = 0
    absent: int = 0
    #: Clients whose rooms keep history: only they are proved to have got everything.
    with_history: int = 0
    #: Publications: those that the rate asked for, and what became of them.
    planned: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    delivered: int = 0
    #: Of these, after a reconnect, from history.
    caught_up: int = 0
    #: Connections that storms cut.
    cut: int = 0
    #: Deliveries with a send time in the future: two clocks differ.
    clock: int = 0
    #: The longest time that this generator's processes were late for themselves.
    lag_ms: float = 0.0
    #: The longest time that a publication was sent after it was due.
    late_ms: float = 0.0
    #: Closes by the server and failed attempts to connect, by code or reason.
    closes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)

    def take(self, findings: Findings) -> None:
        for name, count in asdict(findings).items():
            setattr(self, name, getattr(self, name) + count)

    def dump(self) -> dict[str, Any]:
        """For a message to the master."""
        return vars(self) | {"closes": dict(self.closes), "attempts": dict(self.attempts)}

    def wrong(self) -> list[str]:
        """What makes the run a failure, in words; empty: all is well."""
        said = [
            (self.lost, "lost"),
            (self.repeated, "delivered twice"),
            (self.disordered, "delivered out of order"),
        ]
        wrong = [f"{count} publications were {what}" for count, what in said if count]
        if self.absent:
            wrong.append(f"{self.absent} clients were not connected at the end: what they missed is not known")
        if self.settled + self.absent < self.clients:
            wrong.append(f"{self.clients - self.settled - self.absent} clients did not say what they have")
        if not self.delivered:
            wrong.append("nothing was delivered: nothing was tested")
        return wrong

    def doubts(self) -> list[str]:
        """What makes the figures less sure."""
        doubts = []
        if self.lag_ms > 100:
            doubts.append(
                f"the generator was late for itself by up to {self.lag_ms:.0f} ms: that much of the latencies may be "
                "its own; use more processes or machines"
            )
        if self.late_ms > 500:
            doubts.append(
                f"publications were sent up to {self.late_ms:.0f} ms after they were due, which counts: the deployment "
                "answered late, or PUBLISHERS are too few for RATE"
            )
        if self.accepted < 0.9 * self.planned:
            doubts.append(f"only {self.accepted} of {self.planned} planned publications were accepted")
        if self.clock:
            doubts.append(f"{self.clock} deliveries came before they were sent: the clocks of the machines differ")
        if self.with_history < self.settled:
            doubts.append(
                f"{self.settled - self.with_history} clients were in rooms without history: what was lost before the "
                "first or after the last publication that they heard of a publisher is not seen"
            )
        return doubts


def load(dumped: Mapping[str, Any]) -> Figures:
    figures = Figures(**dumped)
    figures.closes, figures.attempts = Counter(figures.closes), Counter(figures.attempts)
    return figures


def total(parts: Iterable[Figures]) -> Figures:
    """All processes together."""
    whole = Figures()
    for part in parts:
        for name, value in vars(part).items():
            if name in ("lag_ms", "late_ms"):
                setattr(whole, name, max(getattr(whole, name), value))
            else:
                setattr(whole, name, getattr(whole, name) + value)
    return whole
