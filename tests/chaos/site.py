"""What a fault happens to: two pods of two workers behind Nginx, a third pod to surge to, and a broker of one kind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from bench.process import resident
from local.ports import HOST
from tests.chaos.load import NAMESPACE
from tests.chaos.websocket import Address
from tests.support.proxy import Proxy, proxy
from tests.support.stack import Stack
from tests.support.valkey import ClusterOfThree, Server, Trio, server

#: Seconds that a pod's drain may take, and of them those that its closes are spread over (docs/ARCHITECTURE.md): what
#: is left for what is unsent, and the head start, come off.
DRAIN = 4.0
CLOSES = 0.75 * DRAIN - 0.2

#: The pod whose connection to the broker leads through a proxy.
REMOTE_POD = 2

#: The one that a rolling restart begins with.
SPARE_POD = 3

_ENV = {
    f"CARILLON_NAMESPACES__{NAMESPACE.upper()}__HISTORY_SIZE": "10000",
    "CARILLON_DRAIN_TIMEOUT": str(DRAIN),
    "CARILLON_DRAIN_RATE": "0",
}


class Kind(Enum):
    """Which broker."""

    SINGLE = "one Valkey with AOF"
    SENTINEL = "a master, a replica, three Sentinels"
    CLUSTER = "a cluster of three"


@dataclass
class Site:
    """`running` are the numbers of the pods that serve, `spare` of the one that does not."""

    stack: Stack
    running: list[int] = field(default_factory=lambda: [1, 2])
    spare: int = SPARE_POD

    @property
    def edge(self) -> Address:
        return HOST, self.stack.port

    def apis(self) -> list[Address]:
        """Where the server API answers."""
        return [(HOST, port) for port in self.ports()]

    def ports(self) -> list[int]:
        """The internal ones, of the pods that serve."""
        return [self.stack.pods[pod - 1].internal_port for pod in self.running]

    def memory(self) -> int:
        """Resident memory of all workers, in bytes."""
        return resident([pid for pod in self.running for pid in self.stack.worker_pids(pod)])


@dataclass
class Single(Site):
    """One Valkey that writes every command to disk before it answers. One pod reaches it through `proxy`."""

    server: Server = field(kw_only=True)
    proxy: Proxy = field(kw_only=True)
    folder: Path = field(kw_only=True)


@dataclass
class Sentinels(Site):
    trio: Trio = field(kw_only=True)


@dataclass
class Cluster(Site):
    cluster: ClusterOfThree = field(kw_only=True)
    #: Replicas that a fault adds are entered here.
    opened: ExitStack = field(kw_only=True)


@asynccontextmanager
async def _pods(folder: Path, url: str, *, remote_url: str = "", **env: str) -> AsyncIterator[Stack]:
    """In threads: the proxy between a pod and the broker needs the loop meanwhile."""
    stack = Stack(
        folder / "stack",
        pods=3,
        late=[SPARE_POD],
        env={**_ENV, "CARILLON_REDIS_URL": url, **env},
        env_of_pod={REMOTE_POD: {"CARILLON_REDIS_URL": remote_url or url}},
    )
    starting = asyncio.ensure_future(asyncio.to_thread(stack.start))
    try:
        await asyncio.shield(starting)
        yield stack
    finally:
        await asyncio.wait((starting,))  # also after Ctrl-C meanwhile: else it would go on to start
        if starting.exception() is None:
            await asyncio.to_thread(stack.stop)


@asynccontextmanager
async def open_site(kind: Kind, folder: Path) -> AsyncIterator[Site]:
    """Everything runs and is ready; gone afterwards. `folder` is there and empty."""
    if kind is Kind.SENTINEL:
        with Trio(folder).running() as trio:
            async with _pods(folder, trio.url) as stack:
                yield Sentinels(stack, trio=trio)
    elif kind is Kind.CLUSTER:
        with ClusterOfThree(folder).running() as cluster, ExitStack() as opened:
            async with _pods(folder, cluster.url) as stack:
                yield Cluster(stack, cluster=cluster, opened=opened)
    else:
        with server(folder, "--appendonly", "yes", "--appendfsync", "always") as single:
            async with proxy(single.port) as way:
                url, remote = single.url, f"redis://{HOST}:{way.port}"
                async with _pods(folder, url, remote_url=remote, CARILLON_BROKER_TRUST_RESTART="1") as stack:
                    yield Single(stack, server=single, proxy=way, folder=folder)
