"""Finds out whether a port is free, in a way that other servers with SO_REUSEPORT cannot fool (N3)."""

import errno
import socket


def why_not(host: str, port: int) -> str | None:
    """None where the address can be bound, else one line that says why not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a former server in TIME_WAIT do not matter; a listener still does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "is taken by another process" if error.errno == errno.EADDRINUSE else error.strerror
            return f"{host}:{port} {reason}"
    return None
