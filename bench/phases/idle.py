"""Sessions that do nothing: their memory, and the CPU time of their heartbeats."""

import time
from contextlib import ExitStack

from bench.dialect import Line
from bench.measure import Bench, Loaded, loaded
from bench.peer_servers import peer_servers
from bench.process import cpu, descriptor_limit, resident
from bench.product import ROOM, product, subscriber
from bench.server import Server

SESSIONS = 5000
#: Descriptors that a server needs beside its connections.
SPARE = 600
#: Heartbeats are measured over this many seconds: two intervals of 25 s.
HEARTBEATS = 50


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(product(bench.folder))
        one = _settled(stack, bench, server)
        _memory(bench, one, SESSIONS)
        _heartbeats(bench, one, 5 if bench.quick else HEARTBEATS)
        if not bench.quick:
            _memory(bench, one, descriptor_limit() - SPARE - SESSIONS, before=SESSIONS)
    with ExitStack() as stack:
        for server in peer_servers(stack, bench.folder, ("tutorial",) if bench.quick else None):
            _memory(bench, _settled(stack, bench, server), 1000)
    _rooms(bench)


def _settled(stack: ExitStack, bench: Bench, server: Server) -> Loaded:
    """Some sessions have come and stayed, so that what is made once is made."""
    return loaded(stack, bench, server).members(200)


def _memory(bench: Bench, one: Loaded, sessions: int, before: int = 0) -> None:
    start = resident(one.server.pids())
    one.members(sessions)
    each = (resident(one.server.pids()) - start) / sessions
    bench.add("idle memory", one.server.name, {"sessions": before + sessions}, [{"bytes": each}])


def _heartbeats(bench: Bench, one: Loaded, seconds: float) -> None:
    """The share of a core that the sessions need while nothing is published."""
    pids = one.server.pids()
    one.load.run(1)
    began, start = time.monotonic(), cpu(pids)
    one.load.run(seconds)
    share = (cpu(pids) - start).total / (time.monotonic() - began)
    parameters = {"sessions": SESSIONS, "seconds": seconds}
    bench.add("idle cpu", one.server.name, parameters, [{"percent of a core": 100 * share}])


def _rooms(bench: Bench) -> None:
    """What a subscription more costs, in a room that is there already and in a new one."""
    sessions, rooms, new = 1000, 20, 20_000
    with ExitStack() as stack:
        server = stack.enter_context(product(bench.folder, env={"CARILLON_MAX_SUBSCRIPTIONS": "100000"}))
        one = _settled(stack, bench, server)
        _grown(one, [_subscriber(0, "shared", rooms)])
        alone = _grown(one, [_subscriber(n, "shared", 0) for n in range(sessions)])
        more = _grown(one, [_subscriber(n, "shared", rooms) for n in range(sessions)])
        each = (more - alone) / (sessions * rooms)
        bench.add("memory", server.name, {"of": "further subscription"}, [{"bytes": each}])
        each = _grown(one, [_subscriber(0, "new", new)]) / new
        bench.add("memory", server.name, {"of": "new room"}, [{"bytes": each}])


def _grown(one: Loaded, lines: list[Line]) -> int:
    start = resident(one.server.pids())
    one.idle(lines)
    return resident(one.server.pids()) - start


def _subscriber(number: int, name: str, count: int) -> Line:
    """In the room of all, and in `count` others."""
    return subscriber(f"user-{number}", [ROOM, *(f"{name}-{n}" for n in range(count))])
