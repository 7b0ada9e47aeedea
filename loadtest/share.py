"""One process's share of a run: what its clients count, and the moments that all processes have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol

from gevent import sleep, spawn, spawn_later
from gevent.event import Event

from loadtest.figures import Figures
from loadtest.latency import Pace
from loadtest.plan import Plan

#: Seconds that clients have at the end to reach the newest position of their rooms.
SETTLE = 5.0
#: Seconds after the last publication of this process: others have theirs answered, and what is under way is heard.
LINGER = 1.0
#: Seconds between two looks at how late this process is.
LAG_INTERVAL = 0.05


class Client(Protocol):
    """What a process asks of its clients, from greenlets of its own."""

    def cut(self) -> None: ...
    def settle(self) -> None: ...
    def give_up(self) -> None: ...


class Share:
    """`fire` is Locust's `events.request.fire`."""

    def __init__(self, plan: Plan, number: int, fire: Callable[..., None]) -> None:
        self.plan = plan
        #: Of this process among all.
        self.number = number
        self.figures = Figures()
        self.clients: list[Client] = []
        #: Nobody begins to publish any more.
        self.quiet = Event()
        #: Nothing is published any more: how much there is to have can be asked for.
        self.is_complete = False
        self.gave_up = False
        #: Room -> the newest position that a publisher of this process was answered.
        self.tops: dict[str, tuple[str, int]] = {}
        self._fire = fire
        self._seats: dict[str, int] = {}
        self._under_way = 0
        self._idle = Event()
        self._idle.set()

    def seat(self, scenario: str) -> int:
        """The number of a new client among those of its scenario in this process."""
        seat = self._seats.get(scenario, 0)
        self._seats[scenario] = seat + 1
        return seat

    def join(self, client: Client) -> None:
        if not self.clients:
            spawn(self._watch_lag)
        self.clients.append(client)
        self.figures.clients += 1

    def record(self, name: str, ms: float, size: int = 0, failure: str = "") -> None:
        """One line of Locust's statistics: `name` names no room, `failure` no person."""
        exception = RuntimeError(failure) if failure else None
        self._fire(
            request_type="WS", name=name, response_time=ms, response_length=size, exception=exception, context={}
        )

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """A publication is under way: until it is answered, nobody knows how much there is to have."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def accepted(self, room: str, epoch: str, offset: int) -> None:
        """A publisher was answered."""
        self.figures.accepted += 1
        known = self.tops.get(room)
        if known is None or known[0] != epoch or known[1] < offset:
            self.tops[room] = (epoch, offset)

    def due(self, pace: Pace) -> Iterator[float]:
        """At each moment of a publisher's pace until publishing ends: how many seconds late it is. What is done then
        is under way until the next one is asked for. Counts what the rate asks for, also where nobody came to it."""
        while not self.quiet.wait(pace.wait(perf_counter())):
            late = pace.late(perf_counter())
            self.figures.planned += 1
            self.figures.late_ms = max(self.figures.late_ms, late * 1000)
            with self.publishing():
                yield late
        self.figures.planned += pace.missed(perf_counter())

    # Moments of the whole run

    def storm(self) -> None:
        """Cuts all who are to be cut, at once."""
        for client in self.clients:
            client.cut()

    def end(self) -> None:
        """Publishing ends; all clients find out whether they have everything."""
        if self.quiet.is_set():
            return
        self.quiet.set()
        spawn(self._settle)

    def _settle(self) -> None:
        self._idle.wait()
        sleep(LINGER)
        self.is_complete = True
        for client in self.clients:
            spawn(client.settle)
        spawn_later(SETTLE, self._give_up)

    def _give_up(self) -> None:
        self.gave_up = True
        for client in self.clients:
            client.give_up()

    @property
    def is_settled(self) -> bool:
        return self.quiet.is_set() and self.figures.settled + self.figures.absent >= self.figures.clients

    def _watch_lag(self) -> None:
        """How late this process is for itself."""
        while True:
            began = perf_counter()
            sleep(LAG_INTERVAL)
            self.figures.lag_ms = max(self.figures.lag_ms, (perf_counter() - began - LAG_INTERVAL) * 1000)
