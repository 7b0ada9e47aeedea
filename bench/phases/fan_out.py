"""One room, one publication under way at a time: what a delivery costs, by members and by server."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.dialect import text_of
from bench.measure import Bench, Loaded, in_turn, loaded
from bench.peer_servers import peer_servers
from bench.product import product
from bench.server import Server, floor

PAYLOAD = 200

#: The product without its send loop in C.
IN_PYTHON = "carillon, pure Python"

#: Peers that are measured with more members than MOST_FOR_ALL: the others take minutes.
FAST = ("tutorial", "picows_server")
MOST_FOR_ALL = 1000


def run(bench: Bench) -> None:
    for members in (200, 1000) if bench.quick else (200, 1000, 5000):
        with ExitStack() as stack:
            names = ("tutorial",) if bench.quick else FAST if members > MOST_FOR_ALL else None
            servers = _servers(bench, stack, names)
            all_loaded = [loaded(stack, bench, server).members(members).publisher() for server in servers]
            compare(bench, "fan-out", all_loaded, members, PAYLOAD)


def compare(
    bench: Bench,
    phase: str,
    servers: Sequence[Loaded],
    members: int,
    payload: int = PAYLOAD,
    *,
    rooms: int | None = None,
    **how: Any,
) -> None:
    """The same publications through each server in turn. The floor sends what the product sends, byte for byte."""
    product_ = next(one for one in servers if one.server.name == "carillon")
    text = text_of(payload)
    wire = round(product_.load.publish(1, product_.server.dialect.publish(text))["bytes"] / members)
    templates = {one.server.name: one.server.dialect.publish(text) for one in servers} | {"floor": text_of(wire)}
    work = {
        one.server.name: partial(one.deliveries, templates[one.server.name], members=members, **how) for one in servers
    }
    parameters = {"members": members, "payload": payload} | ({"rooms": rooms} if rooms else {})
    in_turn(bench, phase, parameters, work)


def _servers(bench: Bench, stack: ExitStack, names: Sequence[str] | None) -> list[Server]:
    ours = [
        stack.enter_context(floor(bench.native, bench.folder)),
        stack.enter_context(product(bench.folder)),
        stack.enter_context(product(bench.folder, name=IN_PYTHON, env={"CARILLON_NATIVE_SEND": "false"})),
    ]
    return [*ours, *peer_servers(stack, bench.folder, names)]
