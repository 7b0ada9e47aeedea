"""What a room's history held at one moment, for those who come back to it (R1, R3)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Self

from app.broker.base import Page, Position
from app.gateway.delivery import Delivery
from app.wire.publication import unpack
from app.wire.versioned import UnknownVersion

#: What of a replay is one write, in bytes of data; the next one is for the outbox if the client does not read (O1).
PORTION = 16_384


class Replay:
    """Read once, shared by all who were waiting: each publication is encoded and framed once for all of them."""

    __slots__ = ("_begins", "cut", "deliveries", "era", "top")

    def __init__(
        self, top: Position, deliveries: Sequence[Delivery], era: int, *, begins: int = 0, cut: bool = False
    ) -> None:
        self.top = top
        self.deliveries = deliveries
        #: The room's when the read was sent (Room.era).
        self.era = era
        #: The offset of the first publication that was read, though it may be one that cannot be understood.
        self._begins = begins
        #: Whether it ends before the newest publication: what follows would be too much, or cannot be understood.
        self.cut = cut

    @classmethod
    def of(cls, room_name: str, page: Page, era: int, *, deflate_from: int) -> Self:
        """Ends before what this release cannot understand (P6); a read that begins there finds that it is missing."""
        deliveries: list[Delivery] = []
        # Another release may keep more than this one reads at once.
        cut = page.cut or (bool(page.publications) and page.publications[-1][0] < page.top.offset)
        for offset, envelope in page.publications:
            try:
                publication = unpack(envelope)
            except UnknownVersion:
                cut = True
                break
            position = Position(page.top.epoch, offset)
            deliveries.append(Delivery(room_name, position, publication, deflate_from=deflate_from))
        begins = page.publications[0][0] if page.publications else 0
        return cls(page.top, deliveries, era, begins=begins, cut=cut)

    def after(self, since: Position) -> Sequence[Delivery] | None:
        """What came after a position, in order, as far as it was read; None where something of it is not there."""
        if since.epoch != self.top.epoch:
            return None
        missed = [delivery for delivery in self.deliveries if delivery.position.offset > since.offset]
        if not missed:
            return () if since.offset == self.top.offset else None
        offsets = [delivery.position.offset for delivery in missed]
        return missed if offsets == list(range(since.offset + 1, offsets[-1] + 1)) else None

    def cut_for_another(self, since: Position) -> bool:
        """Whether it was cut, and began before this position: a read from there may come to the end."""
        return self.cut and since.epoch == self.top.epoch and self._begins <= since.offset < self.top.offset

    @property
    def has_more(self) -> bool:
        """Whether the next read brings what follows."""
        return self.cut and bool(self.deliveries)

    def all_after(self, since: Position, max_bytes: int) -> Sequence[Delivery] | None:
        """Everything after a position; None also where that would be more than `max_bytes` of data (R3)."""
        missed = self.after(since)
        if missed and (self.cut or sum(len(delivery.publication.data) for delivery in missed) > max_bytes):
            return None
        return missed


def portions(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """In order, each with at least one, and PORTION at most where there are more."""
    start = size = 0
    for index, delivery in enumerate(deliveries):
        size += len(delivery.publication.data)
        if size > PORTION and index > start:
            yield deliveries[start:index]
            start, size = index, len(delivery.publication.data)
    if deliveries:
        yield deliveries[start:]


#: Reads publications after this offset; None: only the room's newest position.
Read = Callable[[int | None], Awaitable[Replay]]


class SharedReads:
    """Reads of one room's history. Who asks while one is under way waits for the next, which then serves all who wait:
    a read counts only for those who had begun to collect before it was sent (R1)."""

    __slots__ = ("_read", "_task", "_waiting")

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: list[tuple[int | None, asyncio.Future[Replay]]] = []
        self._task: asyncio.Task[None] | None = None

    async def get(self, since: int | None) -> Replay:
        """Raises BrokerUnavailable."""
        future: asyncio.Future[Replay] = asyncio.get_running_loop().create_future()
        self._waiting.append((since, future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._serve())
        return await future

    async def _serve(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            offsets = [since for since, _ in waiting if since is not None]
            try:
                replay = await self._read(min(offsets) if offsets else None)
            except BaseException as error:  # whoever waits is told
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    self._task = None
                    raise
            else:
                for _, future in waiting:
                    if not future.done():
                        future.set_result(replay)
        self._task = None
