"""Questions to a server that may still be starting: short, and no exceptions for an answer."""

import http.client
import socket

from local.ports import HOST

_TIMEOUT = 1.0


def http_status(port: int, path: str) -> int | None:
    """The status of `GET path`; None where nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def redis_answers(port: int) -> bool:
    """Whether a Valkey or Redis answers PING (its database is loaded)."""
    try:
        with socket.create_connection((HOST, port), _TIMEOUT) as connection:
            connection.settimeout(_TIMEOUT)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def listens(port: int) -> bool:
    """Whether anybody accepts a connection."""
    try:
        socket.create_connection((HOST, port), _TIMEOUT).close()
    except OSError:
        return False
    return True
