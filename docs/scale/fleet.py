"""What a number of connections needs: it follows from costs, assumptions and choices."""

from dataclasses import dataclass
from math import ceil

from docs.scale.assumptions import CHOICE, LOAD, Choice, Load
from docs.scale.costs import COSTS, SECOND, Costs


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


def fleet(connections: float, costs: Costs = COSTS, load: Load = LOAD, choice: Choice = CHOICE) -> Fleet:
    """The smallest fleet that keeps to the choice."""
    workers = ceil(connections / choice.sessions)
    while gateway_cores(connections, workers, costs, load) > choice.busy * workers:
        workers += max(1, workers // 50)
    publications = connections * load.deliveries / load.room
    hearing = heard_by(workers, load.room)
    here = rooms_of_a_worker(connections, workers, load) * workers
    comes = connections / load.life
    redis = (
        publications * (costs.script_us + hearing * costs.hear_us)
        + here / load.position_check * costs.redis_check_us
        + comes * costs.redis_back_us
        + workers * (costs.echo_us + costs.hear_us)  # each node's echo, once a second
    )
    redis *= costs.light / SECOND
    edge = connections * (costs.edge_idle_us + load.deliveries * costs.edge_delivery_us)
    edge += comes * costs.edge_handshake_us
    edge *= costs.light / SECOND
    edges = max(ceil(connections / edge_capacity(costs, choice)), ceil(edge / choice.busy / choice.edge_workers))
    pings = load.ping_bytes / 2 / load.ping_interval
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


def storm_seconds(f: Fleet, costs: Costs = COSTS) -> dict[str, float]:
    """How long each part is wholly busy when all come back at once, beside its usual work."""
    work = {"gateway": costs.back_us, "edge": costs.edge_handshake_us, "Redis": costs.redis_back_us}
    free = {
        "gateway": f.workers - f.gateway_cores,
        "edge": 2 * f.edges - f.edge_cores,
        "Redis": f.shards - f.redis_cores,
    }
    return {part: f.connections * work[part] / SECOND / free[part] for part in work}
