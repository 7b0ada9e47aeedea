"""Whether the peers can be measured: each is started, and three members and a publisher speak with it as described.

    .venv/bin/python -m bench.peers.check [NAME ...]

Runs from the product's environment; the peers run from theirs. Exit code 1 where a peer does not do what it should."""

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import websockets

from bench.peer_servers import peer_server
from bench.peers import PEERS, PYTHON, Peer, Step, credentials
from bench.process import children
from bench.server import valkey
from local.errors import LocalError
from local.ports import HOST

MEMBERS = 3
MESSAGES = 5
PAYLOAD_BYTES = 200
#: Seconds for a start, a step, or a message.
PATIENCE = 15

_SEQUENCE = re.compile(r"seq=(\d{6});")
Client = websockets.ClientConnection


def main() -> int:
    names = sys.argv[1:] or list(PEERS)
    unknown = set(names) - set(PEERS)
    if unknown:
        print(f"No such peer: {', '.join(sorted(unknown))}. There are: {', '.join(PEERS)}.", file=sys.stderr)
        return 2
    if not PYTHON.exists():
        print("The peers have no environment yet; make it with: sh local/venv.sh bench", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as redis_url:
        failed = sum(failures(PEERS[name], redis_url, Path(folder)) for name in names)
    return 1 if failed else 0


def failures(peer: Peer, redis_url: str, folder: Path) -> int:
    """Prints one line for each way to run the peer; in how many it fails. One that is not installed does not."""
    if peer.binary and shutil.which(peer.binary) is None:
        print(f"{peer.name:20} SKIPPED: no {peer.binary} is on PATH")
        return 0
    if "{token}" not in peer.path:
        return not works(peer, peer.name, {}, "", redis_url, folder)
    return sum(
        not works(peer, f"{peer.name} {algorithm}", made.environ, made.token, redis_url, folder)
        for algorithm, made in (("HS256", credentials.hs256()), ("EdDSA", credentials.eddsa()))
    )


def works(peer: Peer, name: str, environ: Mapping[str, str], token: str, redis_url: str, folder: Path) -> bool:
    """Starts the peer, speaks with it, ends it, and prints how that went."""
    began = time.monotonic()
    try:
        with peer_server(peer, folder, redis_url=redis_url, environ=environ) as server:
            started = time.monotonic() - began
            asyncio.run(converse(peer, server.port, token))
            forked = [child for pid in server.pids() for child in children(pid)]
            assert not forked, f"its work is done by other processes: {forked}"
    except (LocalError, AssertionError, OSError, TimeoutError, websockets.WebSocketException) as error:
        print(f"{name:20} FAILED: {type(error).__name__}: {error}")
        return False
    print(f"{name:20} ok: {MEMBERS} members got {MESSAGES} in order, started in {started:.1f} s")
    return True


async def converse(peer: Peer, port: int, token: str) -> None:
    """Publishes to the members and asserts that everybody got what the description says, once and in order."""
    url = f"ws://{HOST}:{port}{peer.path.replace('{token}', token)}"
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(client(url, peer.member_setup)) for _ in range(MEMBERS)]
        publisher = await stack.enter_async_context(client(url, peer.publisher_setup))
        for number in range(MESSAGES):
            payload = f"seq={number:06};".ljust(PAYLOAD_BYTES, "x")
            await publisher.send(peer.publish_template.replace("{payload}", payload))
        for listener in [*members, *([publisher] if peer.publisher_hears else [])]:
            texts = [await publication(peer, listener) for _ in range(MESSAGES)]
            numbers = [int(_SEQUENCE.findall(text)[0]) for text in texts]
            assert numbers == list(range(MESSAGES)), f"got {numbers}"
            assert all("x" * (PAYLOAD_BYTES - len("seq=000000;")) in text for text in texts), f"changed: {texts[0]}"


@asynccontextmanager
async def client(url: str, setup: tuple[Step, ...]) -> AsyncIterator[Client]:
    async with websockets.connect(url, compression=None, proxy=None) as connection:
        for message, expected in setup:
            if message is not None:
                await connection.send(message)
            answer = await text_of(connection)
            assert expected in answer, f"{expected!r} expected after {message!r}, got {answer!r}"
        yield connection


async def publication(peer: Peer, connection: Client) -> str:
    """The next text with a sequence number; answers pings, leaves out everything else (confirmations)."""
    while True:
        text = await text_of(connection)
        if peer.ping and text == peer.ping[0]:
            await connection.send(peer.ping[1])
        elif _SEQUENCE.search(text):
            return text


async def text_of(connection: Client) -> str:
    try:
        return await asyncio.wait_for(connection.recv(decode=True), PATIENCE)
    except TimeoutError:
        raise TimeoutError(f"nothing came within {PATIENCE} s") from None


if __name__ == "__main__":
    sys.exit(main())
