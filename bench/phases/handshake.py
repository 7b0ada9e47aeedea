"""A client comes: CPU time from the connect to the first answer that needs its token."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench.dialect import Line
from bench.measure import Bench, Figures, Loaded, in_turn, loaded
from bench.peer_servers import available, peer_server
from bench.peers import PEERS, credentials
from bench.product import by_message, eddsa_signer, product
from bench.server import Server

COUNT = 1000
#: Connections that come before, uncounted: another server had the processor's caches.
WARM_UP = 100


def run(bench: Bench) -> None:
    with ExitStack() as stack:
        keys = eddsa_signer(bench.folder)
        server = stack.enter_context(product(bench.folder, env={"CARILLON_TOKEN_PUBLIC_KEYS": str(keys.public)}))
        work = {
            "carillon, no token": _visit(stack, bench, server, _nobody),
            "carillon, HS256 in the upgrade": _visit(stack, bench, server, server.dialect.member),
            "carillon, HS256 in a message": _visit(stack, bench, server, by_message),
            "carillon, EdDSA in the upgrade": _visit(stack, bench, server, keys.member),
            **_tutorials(stack, bench),
        }
        in_turn(bench, "handshake", {"connections": COUNT}, work)


def _nobody(_: int) -> Line:
    return Line("/ws", (('{"type":"ping","id":1}', '"id":1'),))


def _tutorials(stack: ExitStack, bench: Bench) -> dict[str, Callable[[], Figures]]:
    if not available("tutorial"):
        return {}
    work = {}
    plain = stack.enter_context(peer_server(PEERS["tutorial"], bench.folder))
    work["tutorial, no token"] = _visit(stack, bench, plain, plain.dialect.member)
    for name, made in (("tutorial", credentials.hs256()), ("tutorial, EdDSA", credentials.eddsa())):
        peer = replace(PEERS["tutorial_jwt"], path=PEERS["tutorial_jwt"].path.replace("{token}", made.token))
        server = stack.enter_context(peer_server(peer, bench.folder, environ=made.environ))
        work[name] = _visit(stack, bench, server, server.dialect.member)
    return work


def _visit(stack: ExitStack, bench: Bench, server: Server, line: Callable[[int], Line]) -> Callable[[], Figures]:
    one = loaded(stack, bench, server)
    lines = [line(number) for number in range(COUNT)]
    one.idle(lines)  # what the first ones make is made
    one.load.close()
    return lambda: _come(one, lines)


def _come(one: Loaded, lines: Sequence[Line]) -> Figures:
    """Only the coming is counted; the leaving is not."""
    one.idle(lines[:WARM_UP])
    figures = one.cost(len(lines), lambda: one.idle(lines))
    one.load.close()
    return figures
