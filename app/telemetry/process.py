"""Memory, CPU and descriptors of this worker: prometheus_client leaves them out when there are several processes."""

import os
import resource
import sys
import time
from pathlib import Path

from app.telemetry import cgroup, metrics

_PAGE = os.sysconf("SC_PAGE_SIZE")
_FDS = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


def resident_bytes() -> int:
    """Resident memory; where there is no /proc, the most that it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def open_fds() -> int:
    """Open descriptors. Linux 6.2 and later says how many without listing them, which takes long with thousands."""
    return _FDS.stat().st_size if sys.platform == "linux" and _FDS.stat().st_size else len(os.listdir(_FDS))


class ProcessMetrics:
    """Brings the process metrics of one worker up to date."""

    def __init__(self) -> None:
        self._cpu = 0.0

    def update(self) -> None:
        """Called every second."""
        cpu = time.process_time()
        metrics.CPU_SECONDS.inc(cpu - self._cpu)
        self._cpu = cpu
        metrics.RESIDENT_BYTES.set(resident_bytes())
        opened, most = open_fds(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        metrics.OPEN_FDS.set(opened)
        metrics.MAX_FDS.set(most)
        metrics.FREE_FDS.set(most - opened)
        memory = cgroup.memory()
        metrics.MEMORY_USED.set(memory.used)
        metrics.MEMORY_LIMIT.set(memory.limit)
