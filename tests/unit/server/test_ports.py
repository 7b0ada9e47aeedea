"""Probing a port (N3)."""

import socket
from contextlib import closing

from app.server.ports import why_not


def listener(*, reuse: bool) -> socket.socket:
    server = socket.socket()
    if reuse:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def test_a_listener_is_found_also_where_it_would_share_its_port() -> None:
    for reuse in (False, True):
        with closing(listener(reuse=reuse)) as server:
            port = server.getsockname()[1]
            assert why_not("127.0.0.1", port) == f"127.0.0.1:{port} is taken by another process"
            assert why_not("0.0.0.0", port) is not None
        assert why_not("127.0.0.1", port) is None


def test_connections_of_a_former_server_do_not_matter() -> None:
    with closing(listener(reuse=False)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # first, so that it is ours that lingers in TIME_WAIT
        client.close()
    assert why_not("127.0.0.1", port) is None


def test_an_address_of_another_machine() -> None:
    assert why_not("192.0.2.1", 8000) == "192.0.2.1:8000 Cannot assign requested address"


def test_a_name_that_is_none() -> None:
    reason = why_not("no.such.host.invalid", 8000)
    assert reason is not None
    assert "name" in reason.lower(), "as the resolver puts it"
    assert "Unknown error" not in reason
