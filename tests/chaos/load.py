"""The load: clients that stay in their rooms, and publishers that publish there at an even pace."""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic

from app.broker.base import Position
from tests.chaos.client import Client
from tests.chaos.publisher import Asks, Publisher
from tests.chaos.records import Outcome, Publication
from tests.chaos.websocket import Address
from tests.support.waiting import until

CLIENTS = 500
ROOMS = 50
ROOMS_OF_ONE = 3
#: Publications per second, of all publishers together.
RATE = 100
PUBLISHERS = 20
#: Every so many publishers leaves it at an unknown outcome.
GIVES_UP = 4

#: Seconds: between two first connects; for one publication; for all to reach the top at the end.
CONNECT_EVERY = 0.004
PATIENCE = 20.0
SETTLE_TIMEOUT = 30.0

NAMESPACE = "kept"


def room(number: int) -> str:
    return f"{NAMESPACE}:{number}"


class Load:
    """`edge`: Nginx; `token` makes one for a user; `apis`: where the server API answers at this moment, to `key`."""

    def __init__(
        self,
        edge: Address,
        token: Callable[[str], str],
        apis: Callable[[], Sequence[Address]],
        key: str,
        *,
        clients: int = CLIENTS,
        seed: int = 1,
    ) -> None:
        self._random = random.Random(seed)
        self.rooms = [room(number) for number in range(ROOMS)]
        self.clients = [
            Client(
                f"client-{number}",
                edge,
                token(f"client-{number}"),
                self._random.sample(self.rooms, ROOMS_OF_ONE),
                keeps_cookie=number % 2 == 0,  # as browsers do; others have no cookies
            )
            for number in range(clients)
        ]
        self._publishers = [
            Publisher(apis, key, Asks.AGAIN if number % GIVES_UP else Asks.ONCE) for number in range(PUBLISHERS)
        ]
        self._ids = itertools.count(1)
        self._publishing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self.publications: list[Publication] = []

    # Life

    async def start(self) -> None:
        """Returns when all clients are in their rooms."""
        self._looking = asyncio.create_task(self._look())
        for client in self.clients:
            client.start()
            await asyncio.sleep(CONNECT_EVERY)
        await until(self.all_are_open, "all clients are in their rooms", SETTLE_TIMEOUT)

    async def stop(self) -> None:
        self._publishing = False
        tasks = [*self._tasks, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self.clients:
            client.stop()
        for publisher in self._publishers:
            publisher.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1)
            for client in self.clients:
                client.look(monotonic())

    def all_are_open(self) -> bool:
        return all(client.is_open for client in self.clients)

    # A page: from one fault to the next

    def turn_page(self) -> None:
        """Begins new records. Only when all is settled: then everybody is at the top."""
        self.publications = []
        for client in self.clients:
            client.turn_page()

    def publish(self) -> None:
        """Begins to publish."""
        self._publishing = True
        self._tasks = [asyncio.create_task(self._publish_on(publisher)) for publisher in self._publishers]

    async def _publish_on(self, publisher: Publisher) -> None:
        every = PUBLISHERS / RATE
        await asyncio.sleep(self._random.random() * every)
        due = monotonic()
        while self._publishing:
            await self._publish_one(publisher, self._random.choice(self.rooms))
            due = max(due + every, monotonic() - every)  # after an outage it does not make up for all of it
            await asyncio.sleep(max(0.0, due - monotonic()))

    async def _publish_one(self, publisher: Publisher, where: str) -> Publication:
        one = Publication(next(self._ids), where, monotonic())
        self.publications.append(one)
        await publisher.publish(one, monotonic() + PATIENCE)
        return one

    def accepted(self) -> int:
        """How many of this page's publications were."""
        return sum(one.outcome is Outcome.ACCEPTED for one in self.publications)

    async def settle(self) -> Mapping[str, Position]:
        """Ends publishing, puts a last publication into each room, and waits until every member has it.

        Returns those positions also where somebody has not reached them in time: that is for the checker to say."""
        self._publishing = False
        await asyncio.gather(*self._tasks)
        publisher = self._publishers[-1]
        tops: dict[str, Position] = {}
        for where in self.rooms:
            last = await self._publish_one(publisher, where)
            assert last.position is not None, f"a last publication into {where} was not accepted"
            tops[where] = last.position
        with suppress(AssertionError):
            await until(lambda: all(self._has_reached(client, tops) for client in self.clients), "", SETTLE_TIMEOUT)
        return tops

    @staticmethod
    def _has_reached(client: Client, tops: Mapping[str, Position]) -> bool:
        return client.is_open and all(client.positions.get(where) == tops[where] for where in client.rooms)
