"""The primaries of a Redis or Valkey Cluster; follows failovers and moving slots (R4)."""

import asyncio
from collections.abc import Iterable
from itertools import count

import structlog

from app.broker.backoff import backoff
from app.broker.outage import Outage
from app.broker.shard import Shard
from app.broker.shards import ShardMaker
from app.broker.topology import SLOTS, NotFound, SlotRange, find_slots, slot_of
from app.broker.url import Address

log = structlog.get_logger()


class Cluster:
    """One shard for each primary, by its address."""

    def __init__(self, maker: ShardMaker) -> None:
        self._maker = maker
        self._shards: dict[Address, Shard] = {}
        self._owners: list[Shard | None] = [None] * SLOTS
        self._asked = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def all(self) -> Iterable[Shard]:
        return self._shards.values()

    def of(self, key: bytes) -> Shard | None:
        return self._owners[slot_of(key)]

    def at(self, address: str) -> Shard | None:
        host, _, port = address.rpartition(":")
        return self._shards.get(Address(host, int(port)))

    def astray(self) -> None:
        self._asked.set()

    def start(self) -> None:
        self._asked.set()
        self._follower = asyncio.get_running_loop().create_task(self._follow(), name="broker cluster")

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await asyncio.gather(*(shard.stop() for shard in self._shards.values()), *self._leaving)

    async def _follow(self) -> None:
        """Looks where the slots are whenever somebody asked; never in a tight loop."""
        outage = Outage("cluster")
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                ranges = await find_slots(self._maker.url, self._shards, self._maker.settings.broker_timeout)
            except NotFound as error:
                outage.failed(str(error))
                self._asked.set()
            else:
                outage.is_over()
                self._apply(ranges)
            await asyncio.sleep(backoff(outage.failures + 2, self._maker.settings.broker_backoff_max))

    def _apply(self, ranges: list[SlotRange]) -> None:
        first_time = not self._shards
        primaries = {address for _, _, address in ranges}
        gone = [self._shards.pop(address) for address in self._shards.keys() - primaries]
        new = [self._add(address, lost=not first_time) for address in primaries - self._shards.keys()]
        self._owners = [None] * SLOTS
        for first, last, address in ranges:
            self._owners[first : last + 1] = [self._shards[address]] * (last + 1 - first)
        for shard in self._shards.values():
            if not shard.canary or self.of(shard.canary) is not shard:
                shard.canary = self._canary_of(shard)
        for shard in new:
            shard.start()
        for shard in self._shards.values():
            shard.subscriber.catch_up()
        for shard in gone:
            task = asyncio.get_running_loop().create_task(shard.stop())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        if gone or new:
            log.info("broker.topology", primaries=len(self._shards), new=len(new), gone=len(gone))

    def _add(self, address: Address, *, lost: bool) -> Shard:
        async def locate() -> Address:
            return address

        shard = self._maker.make(locate, lambda: self._wanted(shard), self.astray, lost=lost)
        self._shards[address] = shard
        return shard

    def _canary_of(self, shard: Shard) -> bytes:
        return next(name for name in map(self._maker.canary, count()) if self.of(name) is shard)

    def _wanted(self, shard: Shard) -> list[bytes]:
        own = [shard.canary, self._maker.control]
        return [channel for channel in (*own, *self._maker.interest.rooms) if self.of(channel) is shard]
