"""What is in between: Nginx for each WebSocket, Redis for each node that hears a publication."""

import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.process import cpu, resident
from bench.product import product
from bench.server import Server

SESSIONS = 5000
COMING = 1000
#: Two ping intervals of 25 s.
HEARTBEATS = 50

#: Nodes that hear a publication; how many are published, and how many at once.
NODES = (1, 10, 100)
PUBLICATIONS = 2000
BATCH = 50


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(product(bench.folder, edge=True))
        one = loaded(stack, bench, server).members(200)  # what is made once is made
        _memory(bench, one)
        _heartbeats(bench, one, 5 if bench.quick else HEARTBEATS)
    with ExitStack() as stack:
        at_nginx = _visited(stack, bench, product(bench.folder, edge=True))
        at_gateway = _visited(stack, bench, product(bench.folder, name="direct"))
        work = {"carillon behind Nginx": lambda: _come(at_nginx), "carillon": lambda: _come(at_gateway)}
        in_turn(bench, "edge handshake", {"connections": COMING}, work)
        for nodes in NODES:
            turns = [_spread(at_gateway.server, nodes) for _ in range(bench.repetitions)]
            bench.add("publish spread", "redis", {"nodes": nodes}, turns)


def _visited(stack: ExitStack, bench: Bench, running: AbstractContextManager[Server]) -> Loaded:
    one = loaded(stack, bench, stack.enter_context(running))
    _come(one)
    return one


def _come(one: Loaded) -> Figures:
    """Only the coming is counted; the leaving is not."""
    figures = one.cost(COMING, lambda: one.members(COMING))
    one.load.close()
    return figures


def _memory(bench: Bench, one: Loaded) -> None:
    """Of Nginx; its own and the kernel's, and descriptors."""
    pids = one.server.beside["nginx"]()
    start, open_before = resident(pids), _descriptors(pids)
    one.members(SESSIONS)
    figures = {
        "bytes": (resident(pids) - start) / SESSIONS,
        "descriptors": (_descriptors(pids) - open_before) / SESSIONS,
    }
    bench.add("edge memory", "nginx", {"sessions": SESSIONS}, [figures])


def _descriptors(pids: Sequence[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def _heartbeats(bench: Bench, one: Loaded, seconds: float) -> None:
    """CPU time of each connection and second while nothing is published: only pings and pongs pass."""
    one.load.run(1)
    began = time.monotonic()
    spent = one.cost(SESSIONS, lambda: one.load.run(seconds))
    passed = time.monotonic() - began
    figures = {name: value / passed for name, value in spent.items()}
    bench.add("edge idle", "carillon", {"sessions": SESSIONS, "seconds": seconds}, [figures])


def _spread(server: Server, nodes: int) -> Figures:
    """Redis' CPU time of a PUBLISH that so many subscribers hear."""
    port = urlsplit(server.redis_url).port or 0
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(nodes):
            subscriber = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            subscriber.sendall(b"SUBSCRIBE bench-spread\r\n")
            subscriber.recv(1000)
            selector.register(subscriber, selectors.EVENT_READ)
        publisher = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        message = b"PUBLISH bench-spread %s\r\n" % (250 * b"y")
        pids = server.beside["redis"]()
        before = cpu(pids)
        for _ in range(PUBLICATIONS // BATCH):
            for _ in range(BATCH):
                publisher.sendall(message)  # one by one: each is a pass of Redis' loop of its own
                publisher.recv(100)
            heard = 0
            while heard < BATCH * nodes:
                for key, _events in selector.select(5) or _silent():
                    heard += key.fileobj.recv(1 << 20).count(b"$12\r\nbench-spread")  # type: ignore[union-attr]
        spent = cpu(pids) - before
    return {"redis_us": 1e6 * spent.total / PUBLICATIONS}


def _silent() -> list[tuple[selectors.SelectorKey, int]]:
    raise RuntimeError("a subscriber of Redis did not hear everything")
