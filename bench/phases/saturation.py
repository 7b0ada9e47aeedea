"""As much as goes: deliveries a second while several publications are always under way."""

from contextlib import ExitStack

from bench.measure import Bench, loaded
from bench.peer_servers import peer_servers
from bench.phases.fan_out import compare
from bench.product import product
from bench.server import floor

MEMBERS = 1000
#: Publications that are under way at any time.
WINDOW = 16


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(floor(bench.native, bench.folder)),
            stack.enter_context(product(bench.folder)),
            stack.enter_context(
                product(bench.folder, name="carillon, 10 ms", env={"CARILLON_NAMESPACES__DEFAULT__COALESCE_MS": "10"})
            ),
            *peer_servers(stack, bench.folder, ("tutorial",) if bench.quick else None),
        ]
        all_loaded = [loaded(stack, bench, server).members(MEMBERS).publisher() for server in servers]
        compare(bench, "saturation", all_loaded, MEMBERS, seconds=1.5, window=WINDOW)
