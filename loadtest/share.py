"""One process's share of a run: what its clients count, and the moments that all processes have in common."""

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from gevent import sleep, spawn, spawn_later
from gevent.event import Event

from loadtest.figures import Figures
from loadtest.plan import Plan

#: Seconds that clients have at the end to reach the newest position of their rooms.
SETTLE = 5.0
#: Seconds in which clients without positions may still hear what is under way.
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
        self.quiet = Event()
        self.gave_up = False
        #: Room -> the newest position that a publisher of this process was answered.
        self.tops: dict[str, tuple[str, int]] = {}
        self._fire = fire
        self._seats: dict[str, int] = {}

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

    def accepted(self, room: str, epoch: str, offset: int) -> None:
        """A publisher was answered."""
        self.figures.accepted += 1
        known = self.tops.get(room)
        if known is None or known[0] != epoch or known[1] < offset:
            self.tops[room] = (epoch, offset)

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
