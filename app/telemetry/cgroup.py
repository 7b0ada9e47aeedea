"""Memory as the kernel sees it before it kills: of the container or service that this process is in (cgroup v2)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. Used: with the kernel's socket buffers, without what it can throw away. Limit 0: none, or not known."""

    used: int = 0
    limit: int = 0


def memory(root: Path = Path("/")) -> Memory:
    """Zeros where there is no cgroup v2, or where it is not this one's to see."""
    try:
        own = next(line for line in _read(root / "proc/self/cgroup") if line.startswith("0::")).removeprefix("0::/")
        group = root / "sys/fs/cgroup" / own
        (used,), (limit,) = _read(group / "memory.current"), _read(group / "memory.max")
        stat = dict(line.split() for line in _read(group / "memory.stat"))
        return Memory(int(used) - int(stat["inactive_file"]), 0 if limit == "max" else int(limit))
    except (OSError, StopIteration, ValueError, KeyError):
        return Memory()


def _read(file: Path) -> list[str]:
    return file.read_text("ascii").splitlines()
