"""One primary and the node's two connections to it, with the canary that shows whether the node hears it (R2)."""

import asyncio
import math
from collections.abc import Callable

from app.broker.connection import Connection
from app.broker.link import Link
from app.broker.subscriber import Subscriber, SubscriberConnection


class Shard:
    """Commands, subscriptions and canary of one primary. Without a cluster there is one shard."""

    def __init__(
        self,
        subscriber: Subscriber,
        commands: Link[Connection],
        ears: Link[SubscriberConnection],
        *,
        nonce: bytes,
        deaf_after: float,
        astray: Callable[[], None],
    ) -> None:
        self.subscriber = subscriber
        self.commands = commands
        self.ears = ears
        #: Channel of this node alone, whose slot is on this shard.
        self.canary = b""
        self._nonce = nonce
        self._deaf_after = deaf_after
        self._astray = astray
        self._sent: asyncio.Future[object] | None = None
        # Loop time at which the newest canary that came back was sent.
        self._heard = -math.inf
        # When the server last took a canary, and since when it does so without a pause.
        self._taken = self._taken_since = -math.inf

    def start(self) -> None:
        self.commands.start()
        self.ears.start()

    async def stop(self) -> None:
        await self.commands.stop()
        await self.ears.stop()

    @property
    def connected(self) -> bool:
        """Commands have a connection, and everything wanted is subscribed."""
        return self.commands.connection is not None and self.subscriber.complete

    @property
    def echo_age(self) -> float:
        return asyncio.get_running_loop().time() - self._heard

    @property
    def deaf_for(self) -> float:
        """Seconds for which the server has taken canaries of which none came back; 0 where it takes none."""
        now = asyncio.get_running_loop().time()
        if now - self._taken > self._deaf_after:
            return 0.0
        return max(0.0, now - max(self._heard, self._taken_since))

    def sing(self) -> None:
        """Publishes to itself."""
        connection = self.commands.connection
        if connection is None:
            return
        song = b"%b:%.6f" % (self._nonce, asyncio.get_running_loop().time())
        self._sent = connection.call(self.subscriber.verbs.publish, self.canary, song)
        self._sent.add_done_callback(self._sung)

    def heard(self, song: bytes) -> None:
        """The canary came back."""
        nonce, _, time = song.partition(b":")
        if nonce == self._nonce:
            self._heard = max(self._heard, float(time))

    def drop_if_deaf(self) -> bool:
        """Gives connections up that had time enough to bring a canary back, and did not."""
        if self.commands.connection is None or self.ears.connection is None:
            return False
        now = asyncio.get_running_loop().time()
        if now - max(self._heard, self.ears.since, self.commands.since) <= self._deaf_after:
            return False
        self.ears.drop()
        if self._sent is not None and not self._sent.done():
            self.commands.drop()
        return True

    def _sung(self, sent: asyncio.Future[object]) -> None:
        if sent.cancelled():
            return
        if sent.exception() is not None:
            self._astray()
            return
        now = asyncio.get_running_loop().time()
        if now - self._taken > self._deaf_after:
            self._taken_since = now
        self._taken = now
