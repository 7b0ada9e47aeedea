"""Which ports a stack may take."""

import socket

import pytest

from local.errors import LocalError
from local.ports import HOST, demand_free, free_ports, is_free


def listener(*, reuse_port: bool = False) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((HOST, 0))
    made.listen()
    return made


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_listener_makes_a_port_taken_even_with_reuse_port(reuse_port: bool) -> None:
    """N3: a second gunicorn would share the port without a word."""
    with listener(reuse_port=reuse_port) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(LocalError, match=rf"Port {port} on 127\.0\.0\.1 is taken .* PORT="):
            demand_free(port, "PORT")
    assert is_free(port)


def test_connections_in_time_wait_do_not_make_a_port_taken() -> None:
    with listener() as server:
        port = server.getsockname()[1]
        client = socket.create_connection((HOST, port))
        accepted, _ = server.accept()
        accepted.close()  # closes first: TIME_WAIT is on the server's side
        client.recv(1)
        client.close()
    assert is_free(port)


def test_free_ports_are_different_and_outside_of_the_range_of_outgoing_connections() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    with socket.socket() as outgoing:
        outgoing.bind((HOST, 0))
        assert max(ports) < outgoing.getsockname()[1]
