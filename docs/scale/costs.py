"""What was measured: the costs of a connection, a delivery, a publication, and where the figure is from."""

from dataclasses import dataclass

SECOND = 1e6  # in microseconds
GIB = 2**30


@dataclass(frozen=True)
class Costs:
    """Measured: microseconds of CPU time, and bytes; SOURCES says what of and how."""

    session_bytes: float = 3_200
    socket_bytes: float = 4_200
    pod_bytes: float = 125e6
    idle_us: float = 1.9
    delivery_us: float = 6.0
    back_us: float = 510
    receive_us: float = 30
    publish_us: float = 180
    check_us: float = 29
    edge_bytes: float = 25_300
    head_bytes: float = 8_000
    edge_pod_bytes: float = 50e6
    edge_idle_us: float = 1.4
    edge_delivery_us: float = 7.8
    edge_handshake_us: float = 180
    script_us: float = 68
    echo_us: float = 18
    hear_us: float = 5.1
    redis_back_us: float = 80
    redis_check_us: float = 15
    light: float = 2.5


COSTS = Costs()


BY_HAND = "once, by hand"
SOURCES = {
    "session_bytes": ("gateway: a session with one subscription", "bench, idle memory"),
    "socket_bytes": ("kernel: a TCP socket with all that belongs to it (slab), in the memory of its pod", BY_HAND),
    "pod_bytes": ("gateway: gunicorn's master and a worker without sessions, resident", BY_HAND),
    "idle_us": ("gateway: a connection and second, its pings included", "bench, idle cpu"),
    "delivery_us": ("gateway: a delivery", "bench, fan-out (5.2 with 1,000 members of a room, 7.2 with 5,000)"),
    "back_us": ("gateway: a session that comes back alone, with a token and a position", "bench, coming back"),
    "receive_us": ("gateway: a publication that comes from Redis, before its deliveries", "bench, redis receive"),
    "publish_us": ("gateway: a client's publication into a room with history", "bench, publication"),
    "check_us": ("gateway: looking after one room's position, each `position_check`", BY_HAND),
    "edge_bytes": ("Nginx: a WebSocket, without the kernel's two sockets", "bench, edge memory"),
    "head_bytes": ("Nginx: more for it where the request head is above 1 KB, as browsers' are", BY_HAND),
    "edge_pod_bytes": ("Nginx: without connections", BY_HAND),
    "edge_idle_us": ("Nginx: a WebSocket and second, pings included", "bench, edge idle"),
    "edge_delivery_us": ("Nginx: a delivery", "bench, workers"),
    "edge_handshake_us": ("Nginx: an upgrade, without TLS", "bench, edge handshake"),
    "script_us": ("Redis: a publication in a room with history, without those who hear it", "bench, publication"),
    "echo_us": (
        "Redis: a publication without history, likewise: each node's echo, once a second",
        "bench, publish spread",
    ),
    "hear_us": ("Redis: each node that hears a publication", "bench, publish spread"),
    "redis_back_us": ("Redis: a session that comes back alone", "bench, coming back"),
    "redis_check_us": ("Redis: one room's position for one node", BY_HAND),
    "light": ("all three: what a light load costs more than the sum of these (below)", "make load"),
}
