"""A busy room: what joining the writes of a window saves, and what it costs in latency."""

from contextlib import ExitStack
from functools import partial

from bench.dialect import text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.product import product
from bench.server import Server

MEMBERS = 1000
PAYLOAD = 200
WINDOWS = (0, 5, 10, 20)
#: Publications per second from which the window of one more server applies.
BY_RATE = 50


def run(bench: Bench) -> None:
    for rate in (100,) if bench.quick else (20, 100, 250):
        with ExitStack() as stack:
            servers = {f"carillon, {window} ms": _server(stack, bench, window) for window in WINDOWS}
            servers[f"carillon, 10 ms from {BY_RATE}/s"] = _server(stack, bench, 10, BY_RATE)
            all_loaded = {
                name: loaded(stack, bench, server).members(MEMBERS).publisher() for name, server in servers.items()
            }
            work = {name: partial(_busy, one, rate) for name, one in all_loaded.items()}
            in_turn(bench, "coalescing", {"members": MEMBERS, "rate": rate}, work)


def _server(stack: ExitStack, bench: Bench, window: int, by_rate: int = 0) -> Server:
    env = {
        "CARILLON_NAMESPACES__DEFAULT__COALESCE_MS": str(window),
        "CARILLON_NAMESPACES__DEFAULT__COALESCE_RATE": str(by_rate),
    }
    return stack.enter_context(product(bench.folder, name=f"carillon-{window}ms-{by_rate}", env=env))


def _busy(one: Loaded, rate: float) -> Figures:
    """Two seconds of it."""
    template = one.server.dialect.publish(text_of(PAYLOAD))
    return one.published(int(2 * rate), template, members=MEMBERS, rate=rate)
