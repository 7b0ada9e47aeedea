"""Keeps the servers of the stack running and ends them in order: one thread looks at each child ten times a second."""

import signal
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from types import FrameType

from local.child import Child, Service, stop
from local.errors import LocalError

#: Seconds between two looks at the children.
TICK = 0.1
#: This many deaths within this many seconds stop everything.
MAX_DEATHS, DEATHS_WINDOW = 5, 30.0
#: Seconds before a child is started again; doubled with each of its deaths within the window.
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 4.0

Say = Callable[[str], None]


class Supervisor:
    """Runs services until a signal comes or they keep dying.

    `stages` are in the order of ending: the services of one stage are told in their order and awaited together. They
    start in the opposite order, all at once: none of them needs another one to start (N2)."""

    def __init__(self, stages: Sequence[Sequence[Service]], say: Say, start_deadline: float = 60) -> None:
        self._stages = [[Child(service) for service in stage] for stage in stages]
        self._children = [child for stage in reversed(self._stages) for child in stage]
        self._say = say
        self._start_deadline = start_deadline
        self._ending = False
        self._deaths: deque[tuple[float, Child]] = deque()
        self._restart_at: dict[Child, float] = {}

    def run(self, on_ready: Callable[[], None]) -> None:
        """Returns after a signal, with everything ended. Raises LocalError where it cannot start or keeps dying."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        try:
            for child in self._children:
                child.start()
            self._wait_until_ready()
            if not self._ending:
                on_ready()
            while not self._ending:
                for child in self._children:
                    self._look_after(child)
                sleep(TICK)
        finally:
            self._ending = True
            for stage in self._stages:
                stop(stage)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            self._say("Stopping (Ctrl-C again: at once) ...")
        elif number == signal.SIGINT:
            # Not for a second SIGTERM: one kill of a process group reaches us twice, directly and through make.
            for child in self._children:
                child.sweep()

    def _wait_until_ready(self) -> None:
        deadline = monotonic() + self._start_deadline
        waiting = self._children
        while waiting and not self._ending:
            for child in self._children:
                if not child.running:
                    raise LocalError(f"{_obituary(child)} before all was ready:\n{child.log_tail()}")
            waiting = [child for child in waiting if not child.service.is_ready()]
            if waiting and monotonic() > deadline:
                logs = ", ".join(f"{child.service.name} (log: {child.service.log})" for child in waiting)
                raise LocalError(f"Not ready after {self._start_deadline:.0f} s: {logs}")
            sleep(TICK / 2)

    def _look_after(self, child: Child) -> None:
        """Notices a death, and starts a dead child again when its time has come."""
        if child.running:
            return
        now = monotonic()
        if child not in self._restart_at:
            child.sweep()
            self._restart_at[child] = now + self._backoff(child, now)
            wait = self._restart_at[child] - now
            self._say(f"{_obituary(child)}; starting it again in {wait:.2g} s (log: {child.service.log})")
        elif now >= self._restart_at[child]:
            del self._restart_at[child]
            child.start()

    def _backoff(self, child: Child, now: float) -> float:
        """Counts a death. Raises LocalError where it was one too many."""
        self._deaths.append((now, child))
        while now - self._deaths[0][0] > DEATHS_WINDOW:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            raise LocalError(f"{_obituary(child)}: {MAX_DEATHS} deaths in {DEATHS_WINDOW:.0f} s.\n{child.log_tail()}")
        own = sum(1 for _, dead in self._deaths if dead is child)
        return min(FIRST_BACKOFF * 2.0 ** (own - 1), LONGEST_BACKOFF)


def _obituary(child: Child) -> str:
    code = child.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{child.service.name} {how}"
