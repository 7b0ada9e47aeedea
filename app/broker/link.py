"""Keeps one connection to the broker up: connects in the background, and again after each loss."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic

from app.broker.backoff import backoff
from app.broker.connection import AnyConnection, ConnectionLost, NotSent, ReplyError
from app.broker.outage import Outage
from app.broker.stats import Stats


class Link(Generic[AnyConnection]):
    """One supervised connection. `up` and `down` are called in the loop, in turns, `up` first; `stop` calls neither."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[AnyConnection]],
        *,
        name: str,
        timeout: float,
        backoff_max: float,
        stats: Stats,
        up: Callable[[AnyConnection], None],
        down: Callable[[], None],
    ) -> None:
        self._dial = dial
        self._name = name
        self._timeout = timeout
        self._backoff_max = backoff_max
        self._stats = stats
        self._outage = Outage(name)
        self._up = up
        self._down = down
        self._task: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self._stopped = False
        #: The live connection, or None.
        self.connection: AnyConnection | None = None
        #: Loop time at which the live connection was made.
        self.since = 0.0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_up(), name=f"broker {self._name}")

    async def stop(self) -> None:
        """Who waits for the connection is told that there is none any more."""
        self._stopped = True
        self._is_up.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def drop(self) -> None:
        """Gives the connection up, so that a new one is made."""
        if self.connection is not None:
            self.connection.abort()

    async def ready(self) -> AnyConnection:
        """The connection, once it is there; the caller sets the timeout. Raises NotSent where the link is stopped."""
        while self.connection is None or self.connection.closed.done():
            if self._stopped:
                raise NotSent()
            self._is_up.clear()
            await self._is_up.wait()
        return self.connection

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._dial()
            except (OSError, ReplyError, ConnectionLost) as error:  # TimeoutError is an OSError
                attempt += 1
                self._outage.failed(str(error) or type(error).__name__)
                await asyncio.sleep(backoff(attempt, self._backoff_max))
                continue
            if self.since:
                self._stats.reconnects += 1
            self._outage.is_over()
            await self._hold(connection)
            # A server that takes connections and ends them at once is not asked in a tight loop.
            attempt = 1 if loop.time() - self.since > self._backoff_max else attempt + 1
            await asyncio.sleep(backoff(attempt, self._backoff_max))

    async def _hold(self, connection: AnyConnection) -> None:
        self.connection = connection
        self.since = asyncio.get_running_loop().time()
        try:
            self._up(connection)
            self._is_up.set()
            await connection.closed
        finally:
            self.connection = None
            connection.abort()
        self._down()
