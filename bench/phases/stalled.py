"""One member of many reads no more: what the others notice of it."""

from contextlib import ExitStack

from bench.dialect import text_of
from bench.load import LoadFailed
from bench.measure import Bench, Figures, Loaded, loaded
from bench.peer_servers import peer_servers
from bench.product import product

MEMBERS = 1000
PAYLOAD = 16_000
RATE = 20
#: Enough for the buffers of any server: the kernel alone holds up to 4 MB for one that does not read (tcp_wmem).
COUNT = 340


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        env = {"CARILLON_NAMESPACES__DEFAULT__SLOW_CONSUMER": "drop_oldest"}
        servers = [
            stack.enter_context(product(bench.folder, env=env)),
            *peer_servers(stack, bench.folder, ("tutorial",)),
        ]
        for server in servers:
            one = loaded(stack, bench, server).members(MEMBERS).publisher()
            before = _told(one)
            one.load.stall(1)
            bench.add("stalled", server.name, {"stalled": 0}, [before])
            bench.add("stalled", server.name, {"stalled": 1}, [_told(one)])


def _told(one: Loaded) -> Figures:
    template = one.server.dialect.publish(text_of(PAYLOAD))
    try:
        answer = one.load.publish(COUNT, template, rate=RATE, seconds=COUNT / RATE + 10, whole=False)
    except LoadFailed:
        return {"delivered %": 0.0}
    figures = {"delivered %": 100 * answer["delivered"] / answer["expected"]}
    return figures | {"p50_ms": answer["p50_us"] / 1000, "p99_ms": answer["p99_us"] / 1000}
