"""By size: from a few bytes to 64 KB, and 2 KB of JSON with compression and without."""

import json
import zlib
from contextlib import ExitStack
from functools import partial
from itertools import pairwise

from bench.load import LoadFailed
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.peer_servers import peer_servers
from bench.phases.fan_out import compare
from bench.product import product
from bench.server import floor

MEMBERS = 1000
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def run(bench: Bench) -> None:
    for payload, members in ((20, MEMBERS), (2000, MEMBERS), (65_000, 200)) if not bench.quick else ((65_000, 200),):
        with ExitStack() as stack:
            servers = [
                stack.enter_context(floor(bench.native, bench.folder)),
                stack.enter_context(product(bench.folder)),
                *peer_servers(stack, bench.folder, ("tutorial",)),
            ]
            all_loaded = [loaded(stack, bench, server).members(members).publisher() for server in servers]
            compare(bench, "payload", all_loaded, members, payload)
    _compression(bench)


def _compression(bench: Bench) -> None:
    with ExitStack() as stack:
        work = {}
        for name, headers in (("plain", ()), ("compressed", (OFFER,))):
            server = stack.enter_context(product(bench.folder, name=f"carillon-{name}", headers=headers))
            one = loaded(stack, bench, server).members(MEMBERS).publisher()
            work[f"carillon, {name}"] = partial(_documents, one)
        in_turn(bench, "compression", {"members": MEMBERS, "payload": 2048}, work)


def _documents(one: Loaded) -> Figures:
    figures = one.deliveries(_template(), members=MEMBERS)
    numbers = [_number(frame) for frame in one.load.frames()]
    if any(later != number + 1 for number, later in pairwise(numbers)):
        raise LoadFailed("compressed frames are not in order")
    return figures


def _number(frame: bytes) -> int:
    text = zlib.decompressobj(-15).decompress(frame + b"\0\0\xff\xff")  # RFC 7692 section 7.2.2
    return int(text.partition(b"seq=")[2].partition(b";")[0])


def _template() -> str:
    """2 KB of JSON as an application might send it."""
    row = {"symbol": "CRLN", "bid": 101.25, "ask": 101.5, "volume": 120_000, "venue": "XETRA", "open": True}
    rows = [dict(row, symbol=f"CR{n:02}", bid=100 + n * 1.37, volume=n * 7919) for n in range(20)]
    data = {"mark": "{seq}", "rows": rows}
    return json.dumps({"type": "publish", "room": "bench", "data": data}, separators=(",", ":"))
