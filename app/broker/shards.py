"""The primaries of the broker and which of them owns a key; here the case of one, given or named by Sentinels."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from app.broker.base import Sink
from app.broker.connection import AnyConnection, Connection, connect
from app.broker.link import Link
from app.broker.seen import Seen
from app.broker.shard import Shard
from app.broker.stats import Stats
from app.broker.subscriber import PLAIN, SHARDED, Interest, Subscriber, SubscriberConnection
from app.broker.topology import NotFound, find_master
from app.broker.url import Address, BrokerUrl, Kind
from app.settings import Settings

Locate = Callable[[], Awaitable[Address]]


class Shards(Protocol):
    """The shards of a broker."""

    @property
    def all(self) -> Iterable[Shard]: ...

    def of(self, key: bytes) -> Shard | None:
        """The owner of a key or channel; None while nobody is known to be."""

    def at(self, address: str) -> Shard | None:
        """The shard whose primary is at `host:port`."""

    def astray(self) -> None:
        """Something was asked of the wrong server: look where the primaries are."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ShardMaker:
    """What all shards of a node have in common."""

    url: BrokerUrl
    settings: Settings
    node: str
    nonce: bytes
    interest: Interest
    seen: Seen
    sink: Sink
    stats: Stats
    heard: Callable[[bytes, bytes], None]

    def make(
        self, locate: Locate, wanted: Callable[[], Iterable[bytes]], astray: Callable[[], None], *, lost: bool = False
    ) -> Shard:
        """A shard whose primary `locate` finds, not started yet. `lost`: it takes over from one that was lost."""
        verbs = SHARDED if self.url.kind is Kind.CLUSTER else PLAIN
        subscriber = Subscriber(
            self.interest,
            self.sink,
            self.stats,
            verbs,
            wanted=wanted,
            astray=astray,
            settled=lambda: shard.sing(),
            lost=lost,
        )
        timeout = self.settings.broker_timeout

        def link(
            name: str, make: Callable[[], AnyConnection], up: Callable[[AnyConnection], None], down: Callable[[], None]
        ) -> Link[AnyConnection]:
            def made(connection: AnyConnection) -> None:
                self.seen.doubt()
                up(connection)

            return Link(
                lambda: self._dial(make, locate, astray),
                name=name,
                timeout=timeout,
                backoff_max=self.settings.broker_backoff_max,
                stats=self.stats,
                up=made,
                down=down,
            )

        shard = Shard(
            subscriber,
            commands=link("commands", lambda: Connection(timeout), lambda _: shard.sing(), astray),
            ears=link(
                "subscriber",
                lambda: SubscriberConnection(timeout, subscriber, self.heard),
                subscriber.up,
                subscriber.down,
            ),
            nonce=self.nonce,
            deaf_after=self.settings.broker_deaf_after,
            astray=astray,
        )
        return shard

    def canary(self, number: int = 0) -> bytes:
        """A channel that only this node hears. In a cluster the number decides on its slot."""
        return f"{self.settings.key_prefix}node:{self.node}:{number}".encode()

    @property
    def control(self) -> bytes:
        """The channel that every node hears."""
        return f"{self.settings.key_prefix}control".encode()

    async def _dial(
        self, make: Callable[[], AnyConnection], locate: Locate, astray: Callable[[], None]
    ) -> AnyConnection:
        try:
            address = await locate()
            connection = await connect(
                make, address, self.url.login, tls=self.url.tls, db=self.url.db, name=f"carillon:{self.node}"
            )
        except OSError:
            astray()
            raise
        if self.url.kind is Kind.SENTINEL and (await connection.call("ROLE"))[0] != b"master":
            connection.abort()  # a Sentinel that has not heard of the failover yet
            raise NotFound("the Sentinels name a server that is not a master")
        return connection


class OneShard:
    """One primary for everything."""

    def __init__(self, maker: ShardMaker) -> None:
        self._maker = maker
        self._shard = maker.make(self._locate, self._wanted, self.astray)
        self._shard.canary = maker.canary()
        self._watch: asyncio.Task[None] | None = None

    @property
    def all(self) -> Iterable[Shard]:
        return (self._shard,)

    def of(self, key: bytes) -> Shard:
        return self._shard

    def at(self, address: str) -> None:
        return None

    def astray(self) -> None:
        """A connection that is made again asks for the primary anyway."""

    def start(self) -> None:
        self._shard.start()
        if self._maker.url.kind is Kind.SENTINEL:
            self._watch = asyncio.get_running_loop().create_task(self._watch_master(), name="broker sentinel")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._shard.stop()

    def _wanted(self) -> Iterable[bytes]:
        return [self._shard.canary, self._maker.control, *self._maker.interest.rooms]

    async def _locate(self) -> Address:
        url = self._maker.url
        if url.kind is Kind.SENTINEL:
            return await find_master(url, self._maker.settings.broker_timeout)
        return url.addresses[0]

    async def _watch_master(self) -> None:
        """Leaves an old master that lives on where the Sentinels cannot see it: only this node would talk to it."""
        while True:
            await asyncio.sleep(self._maker.settings.broker_deaf_after)
            try:
                master = await self._locate()
            except NotFound:
                continue
            for link in (self._shard.commands, self._shard.ears):
                if link.connection is not None and link.connection.address != master:
                    link.drop()
