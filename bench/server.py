"""One server that is measured: where it is, how it is spoken to, and whose CPU time counts."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.dialect import Dialect, Line
from bench.native import Native
from local import probes, servers
from local.child import Child, Service, stop
from local.errors import LocalError
from local.ports import HOST, free_ports
from local.stack import ROOT


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    dialect: Dialect
    #: The processes that do the work.
    pids: Callable[[], list[int]]
    #: Processes that work for it, by name: told beside it, not counted.
    beside: Mapping[str, Callable[[], list[int]]] = field(default_factory=dict)
    redis_url: str = ""


@contextmanager
def running(services: Sequence[Service]) -> Iterator[list[Child]]:
    """Starts each, waits until it answers, and ends them all in the opposite order whatever happens."""
    processes = [Child(service) for service in services]
    with ExitStack() as ends:
        for process in processes:
            ends.callback(stop, [process])
            process.start()
            _wait_ready(process)
        yield processes


def _wait_ready(process: Child) -> None:
    deadline = time.monotonic() + 30
    while not process.service.is_ready():
        if not process.running or time.monotonic() > deadline:
            raise LocalError(f"{process.service.name} does not serve:\n{process.log_tail(30)}")
        time.sleep(0.02)


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """A Valkey or Redis for peers, without persistence; its URL."""
    (port,) = free_ports(1)
    options = ("--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", "")
    service = Service(
        name="peers-redis",
        command=(servers.valkey(os.environ), *options),
        log=folder / "peers-redis.log",
        is_ready=lambda: probes.redis_answers(port),
        folder=folder,
    )
    with running([service]):
        yield f"redis://{HOST}:{port}"


@contextmanager
def single(
    name: str,
    command: Callable[[int], Sequence[str]],
    dialect: Dialect,
    folder: Path,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server that is one process, told its port on the command line."""
    port = free_ports(1)[0]
    service = Service(
        name=name,
        command=tuple(command(port)),
        log=folder / f"{name}.log",
        is_ready=lambda: probes.listens(port),
        env={**os.environ, **(environ or {})},
        folder=ROOT,
        patience=1,
    )
    with running([service]) as [process]:
        yield Server(name, port, dialect, lambda: [process.pid])


@contextmanager
def floor(native: Native, folder: Path) -> Iterator[Server]:
    """The send() loop in C. What is published must look like the product's message: it adds nothing to it."""
    dialect = Dialect(
        member=lambda _: Line("/member"),
        publisher=lambda: Line("/publish"),
        publish=lambda text: text,
    )
    with single("floor", lambda port: (str(native.floor), str(port)), dialect, folder) as server:
        yield server
