"""What the kernel accounts to processes: CPU time and resident memory."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU time."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.user - other.user, self.system - other.system)


def cpu(pids: Sequence[int]) -> Cpu:
    """The CPU time of these processes so far: what getrusage(2) tells them of themselves.

    The sum is exact to the nanosecond; how it splits into user and system is exact to a tick (10 ms)."""
    user = system = exact = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) / _TICKS
        system += int(fields[12]) / _TICKS
        for task in Path(f"/proc/{pid}/task").iterdir():
            exact += int((task / "schedstat").read_text().split()[0]) / 1e9
    share = user / (user + system) if user + system else 0.0
    return Cpu(exact * share, exact * (1 - share))


def resident(pids: Sequence[int]) -> int:
    """Resident memory in bytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE


def children(pid: int) -> list[int]:
    """The processes that a process has started, oldest first."""
    found = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return sorted(found)


def descriptor_limit() -> int:
    """How many descriptors a process may have open here, and so how many connections."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
