"""The arithmetic of docs/architecture-at-scale.md: what was measured, what is assumed, what follows.

`python docs/scale.py CONNECTIONS` prints one fleet; `make docs` writes the tables of the page."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

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


CHOSEN = {
    "busy": "of a core at most, so that a storm or a lost zone finds room",
    "sessions": "of one worker at most: so many come back when its pod dies",
    "edge_memory": "bytes of an edge pod that are used at most: 0.8 of a limit of 1 GiB",
    "edge_workers": "Nginx workers of an edge pod",
    "drain": "seconds over which a pod's goodbyes are spread: `drain_timeout` less its last 2",
}


@dataclass(frozen=True)
class Fleet:
    """What a number of connections needs."""

    connections: float
    workers: int
    gateway_cores: float
    gateway_memory: float
    edges: int
    edge_cores: float
    edge_memory: float
    publications: float
    heard_by: float
    redis_cores: float
    shards: int
    subscriptions: float
    redis_memory: float
    out_bits: float
    in_bits: float
    comes: float
    #: A roll within `drain`: cores for those who come back, at each part.
    roll_rate: float
    roll_gateway: float
    roll_edge: float
    roll_redis: float

    @property
    def busy(self) -> float:
        """Of a worker's core."""
        return self.gateway_cores / self.workers

    @property
    def ports(self) -> float:
        """Source ports that an edge pod uses towards one gateway pod."""
        return self.connections / self.edges / self.workers

    @property
    def dns_bytes(self) -> float:
        """An answer with the addresses of all gateway pods."""
        return 16 * self.workers + 60


def heard_by(workers: float, room: float) -> float:
    """Nodes that have a member of a room, where its members are spread by chance."""
    return float(workers * (1 - (1 - 1 / workers) ** room))


def edge_capacity(costs: Costs, choice: Choice) -> float:
    """WebSockets of one edge pod, by its memory."""
    return (choice.edge_memory - costs.edge_pod_bytes) / edge_bytes(costs)


def edge_bytes(costs: Costs) -> float:
    """Memory of a WebSocket at an edge, the kernel's included."""
    return costs.edge_bytes + costs.head_bytes + 2 * costs.socket_bytes


def fleet(connections: float, costs: Costs = Costs(), load: Load = Load(), choice: Choice = Choice()) -> Fleet:
    """The smallest fleet that keeps to the choice."""
    workers = ceil(connections / choice.sessions)
    while gateway_cores(connections, workers, costs, load) > choice.busy * workers:
        workers += max(1, workers // 50)
    publications = connections * load.deliveries / load.room
    hearing = heard_by(workers, load.room)
    here = rooms_of_a_worker(connections, workers, load) * workers
    redis = (
        publications * (costs.script_us + hearing * costs.hear_us)
        + here / load.position_check * costs.redis_check_us
        + connections / load.life * costs.redis_back_us
        + workers * (costs.echo_us + costs.hear_us)  # each node's echo, once a second
    )
    redis *= costs.light / SECOND
    edge = connections * (costs.edge_idle_us + load.deliveries * costs.edge_delivery_us)
    edge += connections / load.life * costs.edge_handshake_us
    edge *= costs.light / SECOND
    edges = max(ceil(connections / edge_capacity(costs, choice)), ceil(edge / choice.busy / choice.edge_workers))
    pings = load.ping_bytes / 2 / load.ping_interval
    comes = connections / load.life
    roll = connections / choice.drain
    return Fleet(
        connections=connections,
        workers=workers,
        gateway_cores=gateway_cores(connections, workers, costs, load),
        gateway_memory=workers * costs.pod_bytes + connections * (costs.session_bytes + costs.socket_bytes),
        edges=edges,
        edge_cores=edge,
        edge_memory=edges * costs.edge_pod_bytes + connections * edge_bytes(costs),
        publications=publications,
        heard_by=hearing,
        redis_cores=redis,
        shards=max(1, ceil(redis / choice.busy)),
        subscriptions=here,
        redis_memory=connections * load.rooms / load.room * load.history * load.kept_bytes,
        out_bits=8
        * (
            connections * (load.deliveries * (load.frame_bytes + load.overhead_bytes * 2 / 3) + pings)
            + comes * load.handshake_bytes
        ),
        in_bits=8
        * (
            connections * (load.deliveries * load.overhead_bytes / 3 + pings)
            + publications * (load.frame_bytes + load.overhead_bytes)
            + comes * load.handshake_bytes
        ),
        comes=comes,
        roll_rate=roll,
        roll_gateway=roll * costs.back_us / SECOND,
        roll_edge=roll * costs.edge_handshake_us / SECOND,
        roll_redis=roll * costs.redis_back_us / SECOND,
    )


def rooms_of_a_worker(connections: float, workers: float, load: Load) -> float:
    """Rooms with a member there: all rooms, times the chance that one has a member on this worker."""
    return connections * load.rooms / load.room * heard_by(workers, load.room) / workers


def gateway_cores(connections: float, workers: float, costs: Costs, load: Load) -> float:
    """Of all workers together."""
    publications = connections * load.deliveries / load.room
    each = costs.idle_us + load.deliveries * costs.delivery_us + costs.back_us / load.life
    heard = publications * (costs.publish_us + heard_by(workers, load.room) * costs.receive_us)
    checks = workers * rooms_of_a_worker(connections, workers, load) / load.position_check * costs.check_us
    return (connections * each + heard + checks) * costs.light / SECOND


# -- Limits: at how many connections each is reached


@dataclass(frozen=True)
class Limit:
    what: str
    #: Whether a fleet is beyond it.
    reached: Callable[[Fleet], bool]
    then: str


LIMITS = (
    Limit(
        "10,000 sessions on one worker",
        lambda f: f.workers > 1,
        "a second pod: of CPU there is plenty left, but what a dead pod sends back is of this size",
    ),
    Limit("memory of one edge pod (0.8 of 1 GiB)", lambda f: f.edges > 1, "a second edge pod, or a larger limit"),
    Limit(
        "one Redis: half a core",
        lambda f: f.shards > 1,
        "Redis Cluster: rooms are spread over shards by themselves; or one core busier than half",
    ),
    Limit(
        "one Redis in a roll of 28 s: a whole core, with the usual work",
        lambda f: f.roll_redis + f.redis_cores > 1,
        "a longer `drain_timeout` (the grace follows), or shards",
    ),
    Limit(
        "a DNS answer in one UDP packet (512 bytes, as Nginx asks)",
        lambda f: f.dns_bytes > 512,
        "nothing, as Nginx asks again over TCP (read, not run): NetworkPolicies must allow port 53/TCP",
    ),
    Limit(
        "50 nodes that tell each other their load each second",
        lambda f: f.workers > 50,
        "nothing: they tell it less often, evening out takes longer",
    ),
    Limit(
        "500 gateway pods, 1,000 in a roll, in Nginx' shared zone of 1 MB (1,000 fit, 1,500 do not)",
        lambda f: 2 * f.workers > 1_000,
        "a larger `zone`, or several releases with a share of the edges each",
    ),
    Limit(
        "1,000 addresses in an old-style Endpoints object",
        lambda f: f.workers > 1_000,
        "nothing for this kit: EndpointSlices and DNS have all; other tools may see 1,000",
    ),
    Limit(
        "Redis' `maxclients` 10,000: two connections of each node to each shard",
        lambda f: 2 * f.workers > 10_000,
        "a higher `maxclients`; or two workers' worth of sessions on one",
    ),
)


def reached_at(limit: Limit) -> float:
    """The number of connections, within 1 %."""
    low, high = 1_000.0, 1e9
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if limit.reached(fleet(middle)) else (middle, high)
    return high


# -- Tables

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)

#: Ten times as much to hear: one publication a second for each connection.
BUSY = Load(deliveries=1)


def short(number: float) -> str:
    """Two significant figures: nothing here is known better."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit * 0.995:
            return f"{float(f'{number / unit:.2g}'):g}{name}"
    return f"{float(f'{number:.2g}'):g}" if number >= 0.005 else "under 0.005"


def memory(number: float) -> str:
    return f"{float(f'{number / GIB:.2g}'):g} GiB" if number >= GIB else f"{number / 2**20:.0f} MiB"


Row = tuple[str, Callable[[Fleet], str]]


def table(head: list[str], rows: list[list[str]], rule: str = "--:") -> str:
    lines = [head, ["---", *[rule] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def costs_table() -> str:
    costs = Costs()
    rows = [
        [f"`{name}`", f"{getattr(costs, name):,.10g}", unit(name), what, source]
        for name, (what, source) in SOURCES.items()
    ]
    return table(["name", "figure", "unit", "what", "measured by"], rows, "---")


def unit(name: str) -> str:
    return "us" if name.endswith("_us") else "bytes" if name.endswith("_bytes") else "factor"


def load_table() -> str:
    load, choice = Load(), Choice()
    rows = [[f"`{name}`", f"{getattr(load, name):,.10g}", what] for name, what in ASSUMED.items()]
    rows += [[f"`{name}`", f"{getattr(choice, name):,.10g}", what] for name, what in CHOSEN.items()]
    return table(["name", "figure", "what"], rows, "---")


def sizes_table(load: Load) -> str:
    fleets = [fleet(size, load=load) for size in SIZES]
    rows: list[Row] = [
        ("**gateway** pods (one worker each)", lambda f: f"{f.workers:,}"),
        ("... cores busy, all together", lambda f: short(f.gateway_cores)),
        ("... of a worker's core", lambda f: f"{100 * f.busy:.0f} %"),
        ("... memory, all together", lambda f: memory(f.gateway_memory)),
        ("... descriptors of a worker", lambda f: short(f.connections / f.workers)),
        ("**edge** pods (two Nginx workers, 1 GiB)", lambda f: f"{f.edges:,}"),
        ("... cores busy", lambda f: short(f.edge_cores)),
        ("... memory", lambda f: memory(f.edge_memory)),
        ("... WebSockets of a pod, descriptors twice as many", lambda f: short(f.connections / f.edges)),
        ("... source ports to one gateway pod, of 28k (64k)", lambda f: short(f.ports)),
        ("**Redis** publications a second", lambda f: short(f.publications)),
        ("... nodes that hear one", lambda f: short(f.heard_by)),
        ("... cores busy", lambda f: short(f.redis_cores)),
        ("... shards at half a core", lambda f: f"{f.shards:,}"),
        ("... subscriptions", lambda f: short(f.subscriptions)),
        ("... memory of histories", lambda f: memory(f.redis_memory)),
        ("**network** to clients, bit/s", lambda f: short(f.out_bits)),
        ("... from clients, bit/s", lambda f: short(f.in_bits)),
        ("... entries of connection tracking, both hops", lambda f: short(2 * f.connections)),
        ("**coming and going** a second", lambda f: short(f.comes)),
    ]
    return table(
        ["connections", *(short(size) for size in SIZES)], [[name, *(of(f) for f in fleets)] for name, of in rows]
    )


def roll_table() -> str:
    rows = []
    for drain in (28.0, 298.0, 1798.0):
        choice = replace(Choice(), drain=drain)
        parts: list[Row] = [
            ("closes a second", lambda f: short(f.roll_rate)),
            ("gateway cores, of the new pods'", lambda f: f"{short(f.roll_gateway)} of {f.workers:,}"),
            ("edge cores", lambda f: f"{short(f.roll_edge)} of {f.edges * 2:,}"),
            ("Redis cores, beside the usual", lambda f: f"{short(f.roll_redis)} of {f.shards:,}"),
        ]
        for part, of in parts:
            name = f"`drain_timeout` {drain + 2:.0f}: {part}"
            rows.append([name, *(of(fleet(size, choice=choice)) for size in SIZES)])
    return table(["connections", *(short(size) for size in SIZES)], rows)


def storm_seconds(f: Fleet, costs: Costs = Costs()) -> dict[str, float]:
    """How long each part is wholly busy when all come back at once, beside its usual work."""
    work = {"gateway": costs.back_us, "edge": costs.edge_handshake_us, "Redis": costs.redis_back_us}
    free = {
        "gateway": f.workers - f.gateway_cores,
        "edge": 2 * f.edges - f.edge_cores,
        "Redis": f.shards - f.redis_cores,
    }
    return {part: f.connections * work[part] / SECOND / free[part] for part in work}


def storm_table() -> str:
    storms = [storm_seconds(fleet(size)) for size in SIZES]
    rows = [[f"{part}: seconds", *(short(storm[part]) for storm in storms)] for part in storms[0]]
    return table(["all come back at once", *(short(size) for size in SIZES)], rows)


def broadcast_table(costs: Costs = Costs(), load: Load = Load()) -> str:
    fleets = [fleet(size) for size in SIZES]
    wire = load.frame_bytes + load.overhead_bytes
    rows: list[Row] = [
        ("Redis: ms of the room's shard", lambda f: short((costs.script_us + f.workers * costs.hear_us) / 1000)),
        ("each gateway worker: ms", lambda f: short(f.connections / f.workers * costs.delivery_us / 1000)),
        ("each Nginx worker: ms", lambda f: short(f.connections / f.edges / 2 * costs.edge_delivery_us / 1000)),
        ("to clients, bytes at once", lambda f: short(f.connections * wire)),
    ]
    return table(
        ["one publication to everybody", *(short(s) for s in SIZES)], [[n, *(of(f) for f in fleets)] for n, of in rows]
    )


def limits_table() -> str:
    found = sorted(((reached_at(limit), limit) for limit in LIMITS), key=lambda pair: pair[0])
    return table(["limit", "reached at", "then"], [[limit.what, short(at), limit.then] for at, limit in found], "---")


TABLES: dict[str, Callable[[], str]] = {
    "costs": costs_table,
    "load": load_table,
    "sizes": lambda: sizes_table(Load()),
    "busy": lambda: sizes_table(BUSY),
    "limits": limits_table,
    "roll": roll_table,
    "storm": storm_table,
    "broadcast": broadcast_table,
}


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or int(sys.argv[1]) == 0:
        sys.exit("Usage: python docs/scale.py CONNECTIONS")
    for key, value in vars(fleet(int(sys.argv[1]))).items():
        print(f"{key:16} {value:,.3g}")
