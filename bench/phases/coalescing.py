"""A busy room: what joining the writes of a window saves, and what it costs in latency."""

from contextlib import ExitStack
from functools import partial

from bench.dialect import text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded, seen_by
from bench.product import product
from bench.server import Server

MEMBERS = 1000
PAYLOAD = 200
WINDOWS = (0, 5, 10, 20)


def run(bench: Bench) -> None:
    for rate in (100,) if bench.quick else (100, 250):
        with ExitStack() as stack:
            servers = {window: _server(stack, bench, window) for window in WINDOWS}
            all_loaded = {
                f"carillon, {window} ms": loaded(stack, bench, server).members(MEMBERS).publisher()
                for window, server in servers.items()
            }
            work = {name: partial(_busy, one, rate) for name, one in all_loaded.items()}
            in_turn(bench, "coalescing", {"members": MEMBERS, "rate": rate}, work)


def _server(stack: ExitStack, bench: Bench, window: int) -> Server:
    env = {"CARILLON_NAMESPACES__DEFAULT__COALESCE_MS": str(window)}
    return stack.enter_context(product(bench.folder, name=f"carillon-{window}ms", env=env))


def _busy(one: Loaded, rate: float) -> Figures:
    count = int(2 * rate)
    seen: dict[str, float] = {}
    template = one.server.dialect.publish(text_of(PAYLOAD))
    figures = one.cost(count * MEMBERS, lambda: seen.update(one.load.publish(count, template, rate=rate)))
    return figures | seen_by(seen)
