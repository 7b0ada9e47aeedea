"""Ports on this machine: is one free, and which ones may a stack take."""

import random
import socket
from pathlib import Path

from local.errors import LocalError

HOST = "127.0.0.1"
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int, host: str = HOST) -> bool:
    """Whether nobody listens on the port. Bound without SO_REUSEPORT, so that a server that set it is seen (N3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a former run in TIME_WAIT do not make a port taken; listeners do, in spite of this option.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def demand_free(port: int, setting: str) -> None:
    """Raises LocalError, naming the setting to change, where something listens on the port."""
    if not is_free(port):
        raise LocalError(f"Port {port} on {HOST} is taken or not allowed; choose another one with {setting}=...")


def free_ports(count: int) -> list[int]:
    """Different free ports, below the range of outgoing connections: a server that restarts finds its port free."""
    first_ephemeral = 32_768
    if _EPHEMERAL_RANGE.exists():
        first_ephemeral = int(_EPHEMERAL_RANGE.read_text().split()[0])
    candidates = range(10_240, max(first_ephemeral, 16_384))
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise LocalError(f"No {count} free ports between {candidates.start} and {candidates.stop}.")
