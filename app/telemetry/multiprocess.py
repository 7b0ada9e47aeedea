"""Prometheus over several processes: one set of files for each worker slot, continued by the slot's next worker (N10).

With process ids instead of slots every dead worker would leave its files behind, and counters would start anew.
"""

import os
import struct
from pathlib import Path

import prometheus_client.values
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_slot = 0


def use_slot(index: int) -> None:
    """Says which slot this process counts for; called once after the fork, before the first metric is made."""
    global _slot
    _slot = index


if DIRECTORY in os.environ:
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: _slot
    )


def prepare(directory: Path) -> None:
    """Makes `directory` this pod's own and empty. Raises OSError, also where it belongs to somebody else."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
    for left_over in directory.glob("*.db"):
        left_over.unlink()


def forget(index: int) -> None:
    """Takes the live gauges of a dead worker away; its counters stay for its successor."""
    mark_process_dead(index, os.environ[DIRECTORY])  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """All metrics of the pod in the text format; without DIRECTORY those of this process."""
    if DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    for attempt in range(3):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        try:
            return generate_latest(registry)
        except (struct.error, OSError):
            # A worker that starts makes its files at this moment: they have no length yet.
            if attempt == 2:
                raise
    raise AssertionError("unreachable")
