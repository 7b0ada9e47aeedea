"""What a node spends on a publication that comes from Redis, before any delivery."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

from bench.dialect import text_of
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.product import ROOM, product

RATE = 2000
PACED = 4000
BURST = 50_000
PAYLOAD = 200


def run(bench: Bench) -> None:
    """One member, which gets only the newest of 20 ms: what is left is the receiving."""
    with ExitStack() as stack:
        server = stack.enter_context(product(bench.folder, env={"CARILLON_NAMESPACES__DEFAULT__CONFLATE_MS": "20"}))
        one = loaded(stack, bench, server).members(1).publisher()
        redis = stack.enter_context(socket.create_connection(("127.0.0.1", urlsplit(server.redis_url).port or 0)))
        message = _publish()
        in_turn(
            bench,
            "redis receive",
            {"payload": PAYLOAD},
            {
                f"paced {RATE}/s": lambda: _received(one, PACED, lambda: _paced(redis, message)),
                "burst": lambda: _received(one, BURST, lambda: _burst(redis, message)),
            },
        )


def _received(one: Loaded, count: int, send: Callable[[], None]) -> Figures:
    """Until the member has got what was published after all the others: then the node is through with them."""

    def all_heard() -> None:
        send()
        one.load.publish(1, one.server.dialect.publish(text_of(PAYLOAD)))

    return one.cost(count, all_heard)


def _publish() -> bytes:
    """PUBLISH of what one node tells another (see app/broker/lua/publish.lua and app/wire/publication.py)."""
    parts = [b"PUBLISH", f"carillon:{{{ROOM}}}".encode(), f':0:1["{PAYLOAD * "y"}",null,null,"key"]'.encode()]
    return b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _paced(redis: socket.socket, message: bytes) -> None:
    began = time.monotonic()
    for number in range(PACED):
        redis.sendall(message)
        time.sleep(max(0, began + (number + 1) / RATE - time.monotonic()))
        if number % 100 == 99:
            _answers(redis, 100)


def _burst(redis: socket.socket, message: bytes) -> None:
    for _ in range(BURST // 500):
        redis.sendall(500 * message)
        _answers(redis, 500)


def _answers(redis: socket.socket, count: int) -> None:
    """Each is `:1`, the one subscriber: so nothing was lost between Redis and the node."""
    data = b""
    while data.count(b"\n") < count:
        data += redis.recv(65_536)
    if data != count * b":1\r\n":
        raise RuntimeError(f"Redis answered {data[:80]!r}")
