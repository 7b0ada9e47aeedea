"""The same room beside many others, on more workers, and through the edge: a delivery must not cost more."""

from contextlib import ExitStack
from functools import partial

from bench.dialect import Line, text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.phases.fan_out import compare
from bench.product import product, subscriber
from bench.server import floor

MEMBERS = 1000
PAYLOAD = 200
ROOMS = (1, 100, 10_000, 100_000)
#: Name, workers, and whether clients come through Nginx.
HOSTED = (("1 worker", 1, False), ("2 workers", 2, False), ("1 worker behind Nginx", 1, True))
#: Rooms that one background session is in.
ROOMS_EACH = 10_000


def run(bench: Bench) -> None:
    _rooms(bench)
    _workers(bench)


def _rooms(bench: Bench) -> None:
    with ExitStack() as stack:
        env = {"CARILLON_MAX_SUBSCRIPTIONS": str(ROOMS_EACH + 1)}
        servers = (
            stack.enter_context(floor(bench.native, bench.folder)),
            stack.enter_context(product(bench.folder, env=env)),
        )
        beside, one = (loaded(stack, bench, server).members(MEMBERS).publisher() for server in servers)
        there = 1
        for rooms in (1, 10_000) if bench.quick else ROOMS:
            while there < rooms:
                more = min(ROOMS_EACH, rooms - there)
                one.idle([_elsewhere(there, more)])
                there += more
            compare(bench, "rooms", (beside, one), MEMBERS, rooms=rooms)


def _elsewhere(first: int, count: int) -> Line:
    return subscriber(f"elsewhere-{first}", [f"other-{first + n}" for n in range(count)])


def _workers(bench: Bench) -> None:
    """Each worker hears every publication once and writes to its own members."""
    with ExitStack() as stack:
        work = {}
        for name, workers, edge in HOSTED:
            server = stack.enter_context(product(bench.folder, workers=workers, edge=edge, name=name.replace(" ", "-")))
            one = loaded(stack, bench, server).members(MEMBERS).publisher()
            work[name] = partial(_deliveries, one)
        in_turn(bench, "workers", {"members": MEMBERS}, work)


def _deliveries(one: Loaded) -> Figures:
    return one.deliveries(one.server.dialect.publish(text_of(PAYLOAD)), members=MEMBERS)
