"""The tables of docs/architecture-at-scale.md; `make docs` writes them."""

from collections.abc import Callable
from dataclasses import replace

from docs.scale.assumptions import ASSUMED, CHOICE, CHOSEN, LOAD, Load
from docs.scale.costs import COSTS, GIB, SOURCES, Costs
from docs.scale.fleet import Fleet, fleet, storm_seconds
from docs.scale.limits import LIMITS, reached_at

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
    rows = [
        [f"`{name}`", f"{getattr(COSTS, name):,.10g}", unit(name), what, source]
        for name, (what, source) in SOURCES.items()
    ]
    return table(["name", "figure", "unit", "what", "measured by"], rows, "---")


def unit(name: str) -> str:
    return "us" if name.endswith("_us") else "bytes" if name.endswith("_bytes") else "factor"


def load_table() -> str:
    rows = [[f"`{name}`", f"{getattr(LOAD, name):,.10g}", what] for name, what in ASSUMED.items()]
    rows += [[f"`{name}`", f"{getattr(CHOICE, name):,.10g}", what] for name, what in CHOSEN.items()]
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
        choice = replace(CHOICE, drain=drain)
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


def storm_table() -> str:
    storms = [storm_seconds(fleet(size)) for size in SIZES]
    rows = [[f"{part}: seconds", *(short(storm[part]) for storm in storms)] for part in storms[0]]
    return table(["all come back at once", *(short(size) for size in SIZES)], rows)


def broadcast_table(costs: Costs = COSTS, load: Load = LOAD) -> str:
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
    "sizes": lambda: sizes_table(LOAD),
    "busy": lambda: sizes_table(BUSY),
    "limits": limits_table,
    "roll": roll_table,
    "storm": storm_table,
    "broadcast": broadcast_table,
}
