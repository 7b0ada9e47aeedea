"""The load of `make chaos` as a program that can run in a pod: clients in their rooms, publishers, and the checker.

`python -m tests.deploy.load_program run` serves until SIGTERM; `... ask WORD` asks it, in another process of the same
pod, and prints its answer as one line of JSON. What it needs is app/, and what `load_pod.py` ships beside it.

The environment: LOAD_EDGE and LOAD_API, each `host:port`; LOAD_CLIENTS; LOAD_SOCKET, a path; and the gateway's own
variables for the secret of tokens and the API key."""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from app.auth.tokens import sign
from app.settings import load as load_settings
from tests.chaos.checker import Flaw, check, summary
from tests.chaos.figures import figures, pod_of
from tests.chaos.load import Load
from tests.chaos.records import Closed, Outcome
from tests.chaos.websocket import ABNORMAL, Address
from tests.support.waiting import until

#: Seconds: how long all clients may take to be in their rooms, at first and again; how long tokens are good for.
CONNECT_TIMEOUT = 120.0
TOKEN_TTL = 86400

#: Publications before a page counts as begun.
BEGUN = 50

Answers = Mapping[str, Callable[[], Awaitable[dict[str, Any]]]]


class Program:
    """What can be asked: `state`, `begin` (a page of records, with publishing), `settle` (its end, with a verdict)."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._began = False
        self.answers: Answers = {"state": self.state, "begin": self.begin, "settle": self.settle}

    async def state(self) -> dict[str, Any]:
        clients = self._load.clients
        return {
            "clients": len(clients),
            "open": sum(client.is_open for client in clients),
            "stopped": Counter(str(client.stopped_by) for client in clients if client.stopped_by is not None),
            "pods": Counter(pod_of(client.node) for client in clients if client.is_open),
            "accepted": self._load.accepted(),
        }

    async def begin(self) -> dict[str, Any]:
        assert not self._began, "a page has begun already: settle it first"
        await until(self._load.all_are_open, "all clients are in their rooms", CONNECT_TIMEOUT)
        self._load.turn_page()
        self._began = True
        self._load.publish()
        await until(lambda: self._load.accepted() >= BEGUN, "publications are accepted", CONNECT_TIMEOUT)
        return await self.state()

    async def settle(self) -> dict[str, Any]:
        assert self._began, "no page has begun"
        await until(self._load.all_are_open, "all clients are in their rooms again", CONNECT_TIMEOUT)
        tops = await self._load.settle()
        self._began = False
        journals = {client.name: client.journal for client in self._load.clients}
        verdict = check(self._load.publications, journals, tops)
        seen = figures(journals, closes=1)
        outcomes = Counter(one.outcome for one in self._load.publications)
        closes = Counter(event.code for journal in journals.values() for event in journal if isinstance(event, Closed))
        return {
            **await self.state(),
            "flaws": {flaw.value: count for flaw in Flaw if (count := verdict.count(flaw))},
            "summary": summary(verdict.findings),
            "rooms_that_lost_their_history": len(verdict.changed_rooms),
            "refused": outcomes[Outcome.REFUSED],
            "unknown": outcomes[Outcome.UNKNOWN],
            "deliveries": seen.deliveries,
            "closes": {str(code): count for code, count in sorted(closes.items())},
            "closes_without_a_frame": closes[ABNORMAL],
            "worst_absence": round(seen.worst_absence, 2),
            "moves_median": seen.moves_median,
            "moves_most": seen.moves_most,
        }


async def run(environ: Mapping[str, str]) -> None:
    """Returns after SIGTERM or Ctrl-C."""
    settings = load_settings()
    edge, api = _address(environ["LOAD_EDGE"]), _address(environ["LOAD_API"])
    load = Load(
        edge,
        lambda user: sign(settings, user, "*", "*", TOKEN_TTL),
        lambda: [api],
        settings.api_keys[0].get_secret_value(),
        clients=int(environ["LOAD_CLIENTS"]),
    )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    program = Program(load)
    server = await asyncio.start_unix_server(_answering(program), environ["LOAD_SOCKET"])
    starting = asyncio.create_task(_start(load))
    try:
        await ended.wait()
    finally:
        server.close()
        starting.cancel()
        await load.stop()


async def _start(load: Load) -> None:
    """Goes on where clients do not all come in at once: whoever asks is told how many have."""
    with suppress(AssertionError):
        await load.start()
    print(json.dumps({"event": "started", "open": sum(client.is_open for client in load.clients)}), flush=True)


def _answering(program: Program) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).decode().strip()
        try:
            told = await program.answers[word]()
        except Exception as error:  # whatever it is, it is for who asks
            told = {"error": f"{type(error).__name__}: {error}", **await program.state()}
        line = json.dumps(told)
        print(json.dumps({"asked": word, "answer": told}), flush=True)
        writer.write(line.encode() + b"\n")
        await writer.drain()
        writer.close()

    return answer


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def ask(path: str, word: str) -> str:
    """The program's answer, as one line of JSON."""
    reader, writer = await asyncio.open_unix_connection(path, limit=2**20)
    writer.write(word.encode() + b"\n")
    line = (await reader.readline()).decode().strip()
    writer.close()
    return line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.load_program", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("run")
    commands.add_parser("ask").add_argument("word", choices=("state", "begin", "settle"))
    command = parser.parse_args()
    if command.command == "run":
        asyncio.run(run(os.environ))
        return 0
    print(answer := asyncio.run(ask(os.environ["LOAD_SOCKET"], command.word)))
    return 1 if "error" in json.loads(answer) else 0


if __name__ == "__main__":
    sys.exit(main())
