"""What the workers of a pod know of each other: shared memory, made by the master before it forks (N1).

A probe reaches one random worker; it must answer for all of them. Works without gunicorn too, as a pod of one.
"""

import math
import mmap
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

CAPACITY = 256  # slots; workers of one pod
STALLED_AFTER = 3.0  # seconds without a heartbeat (N1)


class State(IntEnum):
    """What a worker is able to do; the higher, the worse."""

    READY = 0
    STARTING = 1
    LAGGING = 2
    BROKER_UNREACHABLE = 3
    DEAF = 4
    STALLED = 5  # never written by a worker: its heartbeat is too old
    DRAINING = 6


# A slot is one cache line of eight doubles. A double is written as a whole, so that no reader sees half of a value.
_IN_USE, _PID, _STATE, _HEARTBEAT, _ECHO_AGE, _WIDTH = 0, 1, 2, 3, 4, 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """The worst worker of the pod: its state and slot, and a sentence for whoever reads the probe."""

    state: State
    slot: int
    reason: str

    @property
    def ready(self) -> bool:
        return self.state is State.READY


class PodState:
    """The slots of all workers."""

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic, *, master: int | None = None) -> None:
        """For `workers` of them. The clock must be the same in all processes, as `time.monotonic` is.

        `master`: process id of the one that forks them."""
        self.workers = workers
        #: Of this pod alone, the same in all of its processes.
        self.id = secrets.token_hex(6)
        self._master = master
        self.clock = clock
        self._cells = memoryview(mmap.mmap(-1, CAPACITY * _WIDTH * 8)).cast("d")

    @classmethod
    def create(cls, workers: int) -> "PodState":
        """In the master: anonymous memory, shared with every process forked from now on."""
        return cls(workers, master=os.getpid())

    def end(self) -> bool:
        """In a worker: SIGTERM to the master, the one trigger of a drain (N1). False where there is no master."""
        if self._master is None or self._master != os.getppid():
            return False
        os.kill(self._master, signal.SIGTERM)
        return True

    def slot(self, index: int) -> "Slot":
        return Slot(self, index)

    def cell(self, index: int, field: int) -> float:
        return self._cells[index * _WIDTH + field]

    def write(self, index: int, field: int, value: float) -> None:
        self._cells[index * _WIDTH + field] = value

    def live(self) -> Iterator["Slot"]:
        """Slots in use, by index."""
        return (self.slot(index) for index in range(CAPACITY) if self.cell(index, _IN_USE))

    def worst(self) -> Verdict:
        """The worst live worker; a worker that is missing counts as one that starts."""
        slots = list(self.live())
        if len(slots) < self.workers:
            return Verdict(State.STARTING, -1, f"{len(slots)} of {self.workers} workers are up")
        worst = max(slots, key=lambda slot: slot.state)
        if worst.state is State.READY:
            return Verdict(State.READY, worst.index, "")
        return Verdict(worst.state, worst.index, f"worker {worst.index} is {_words(worst)}")

    @property
    def started(self) -> bool:
        """Whether every worker has come up; that the broker is away does not matter (N2)."""
        slots = list(self.live())
        return len(slots) >= self.workers and all(slot.state is not State.STARTING for slot in slots)


class Slot:
    """One worker's entry, kept by its successor when it dies."""

    __slots__ = ("index", "pod")

    def __init__(self, pod: PodState, index: int) -> None:
        self.pod = pod
        self.index = index

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None until it runs. Never 0 or -1: to kill(2) those are many processes."""
        return int(self.pod.cell(self.index, _PID)) or None

    @property
    def echo_age(self) -> float:
        """Seconds, infinite before the first echo."""
        return self.pod.cell(self.index, _ECHO_AGE)

    @property
    def heartbeat_age(self) -> float:
        return max(0.0, self.pod.clock() - self.pod.cell(self.index, _HEARTBEAT))

    @property
    def state(self) -> State:
        """What the worker last said, or STALLED where that was too long ago."""
        said = State(int(self.pod.cell(self.index, _STATE)))
        if said is not State.STARTING and self.heartbeat_age > STALLED_AFTER:
            return max(said, State.STALLED)
        return said

    def claim(self) -> None:
        """In the master: takes the slot for a new worker, which starts."""
        self.pod.write(self.index, _PID, 0)
        for field, value in ((_STATE, State.STARTING), (_HEARTBEAT, self.pod.clock()), (_ECHO_AGE, math.inf)):
            self.pod.write(self.index, field, value)
        self.pod.write(self.index, _IN_USE, 1)

    def enter(self) -> None:
        """In the worker: says which process it is."""
        self.pod.write(self.index, _PID, os.getpid())

    def release(self) -> None:
        """In the master: the worker is gone."""
        self.pod.write(self.index, _IN_USE, 0)
        self.pod.write(self.index, _PID, 0)

    def beat(self, state: State, echo_age: float = 0.0) -> None:
        """The worker lives and can do this; to be called every second. A drain, once begun, is not taken back."""
        if self.pod.cell(self.index, _STATE) != State.DRAINING:
            self.pod.write(self.index, _STATE, state)
        self.pod.write(self.index, _ECHO_AGE, echo_age)
        self.pod.write(self.index, _HEARTBEAT, self.pod.clock())

    def drain(self) -> None:
        """The worker begins to go away."""
        self.beat(State.DRAINING, self.echo_age)

    def describe(self) -> dict[str, Any]:
        """For the body of a probe."""
        return {
            "slot": self.index,
            "pid": self.pid,
            "state": self.state.name.lower(),
            "heartbeat_age": round(self.heartbeat_age, 3),
            "echo_age": round(self.echo_age, 3) if math.isfinite(self.echo_age) else None,
        }


def _words(slot: Slot) -> str:
    words = slot.state.name.lower().replace("_", " ")
    return f"{words}: no heartbeat for {slot.heartbeat_age:.1f} s" if slot.state is State.STALLED else words


_own: Slot | None = None


def enter(slot: Slot) -> None:
    """Makes `slot` the one of this process; called by the worker after the fork."""
    global _own
    _own = slot
    slot.enter()


def own_slot() -> Slot:
    """The slot of this process; outside of gunicorn a new pod of one."""
    if _own is not None:
        return _own
    slot = PodState(1).slot(0)
    slot.claim()
    slot.enter()
    return slot
