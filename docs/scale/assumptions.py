"""What is assumed of clients, and what is chosen of the machines."""

from dataclasses import dataclass

from docs.scale.costs import GIB


@dataclass(frozen=True)
class Load:
    """What clients do; ASSUMED says what each is."""

    deliveries: float = 0.1
    room: float = 50
    rooms: float = 2
    life: float = 1_800
    frame_bytes: float = 300
    overhead_bytes: float = 150
    ping_bytes: float = 400
    ping_interval: float = 25
    handshake_bytes: float = 5_000
    position_check: float = 30
    history: float = 100
    kept_bytes: float = 400


LOAD = Load()

ASSUMED = {
    "deliveries": "publications that a connection hears in a second: one in 10 s",
    "room": "clients of a room, which are spread over the fleet by chance",
    "rooms": "rooms of a client, with history",
    "life": "seconds that a connection lasts",
    "frame_bytes": "a publication of 200 bytes as a frame",
    "overhead_bytes": "what TCP, IP and TLS add to a frame (two thirds) and its acknowledgement (one third)",
    "ping_bytes": "a ping and its pong, with all around them",
    "ping_interval": "seconds, the default",
    "handshake_bytes": "TLS, upgrade and first messages, each way",
    "position_check": "seconds, the default",
    "history": "publications that a room keeps",
    "kept_bytes": "of one of them, in Redis",
}


@dataclass(frozen=True)
class Choice:
    """How full things may be; CHOSEN says what each is."""

    busy: float = 0.5
    sessions: float = 10_000
    edge_memory: float = GIB * 8 // 10
    edge_workers: float = 2
    drain: float = 28


CHOICE = Choice()

CHOSEN = {
    "busy": "of a core at most, so that a storm or a lost zone finds room",
    "sessions": "of one worker at most: so many come back when its pod dies",
    "edge_memory": "bytes of an edge pod that are used at most: 0.8 of a limit of 1 GiB",
    "edge_workers": "Nginx workers of an edge pod",
    "drain": "seconds over which a pod's goodbyes are spread: `drain_timeout` less its last 2",
}
