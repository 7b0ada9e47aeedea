"""The peers as servers to measure: those whose environment, or whose program, is there."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path

from bench.dialect import Dialect, Line, Script
from bench.peers import PEERS, PYTHON, Peer
from bench.server import Server, single, valkey

#: Peers of the comparison; the others are there for one phase of their own.
COMPARED = ("tutorial", "queues", "picows_server", "socketio_room", "channels_group", "centrifugo")


@cache
def available(name: str) -> bool:
    peer = PEERS[name]
    there = shutil.which(peer.binary) is not None if peer.binary else PYTHON.exists()
    if not there:
        print(f"{peer.title} is not measured: {peer.binary or PYTHON} is missing", flush=True)
    return there


def peer_servers(stack: ExitStack, folder: Path, names: Sequence[str] | None = None) -> list[Server]:
    """The peers of these names (None: all that are compared) that can run here, running."""
    chosen = [PEERS[name] for name in COMPARED if (names is None or name in names) and available(name)]
    redis_url = stack.enter_context(valkey(folder)) if any(peer.needs_redis for peer in chosen) else ""
    return [stack.enter_context(peer_server(peer, folder, redis_url=redis_url)) for peer in chosen]


@contextmanager
def peer_server(
    peer: Peer, folder: Path, *, redis_url: str = "", environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """One peer, running. `environ` is added to its environment."""
    command = partial(peer.command, redis_url=redis_url)
    name = peer.name.partition("_")[0]
    with single(name, command, dialect_of(peer), folder, environ) as server:
        yield server


def dialect_of(peer: Peer) -> Dialect:
    def line(steps: Sequence[tuple[str | None, str]]) -> Line:
        script: Script = tuple((message or "", expected) for message, expected in steps)
        return Line(peer.path, script)

    return Dialect(
        member=lambda _: line(peer.member_setup),
        publisher=lambda: line(peer.publisher_setup),
        publish=lambda text: peer.publish_template.replace("{payload}", text),
        ping=peer.ping,
    )
