"""Keeps a node's list of revoked tokens whole, and ends the sessions that came in with one."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from app import codes
from app.auth.revocations import Revocations
from app.broker.base import Broker, BrokerUnavailable
from app.gateway.registry import Registry
from app.telemetry import logs
from app.telemetry.logs import Limited

log = Limited(logs.get("revocations"))

#: Between two looks, in seconds: what was revoked meanwhile is looked for in one pass over the sessions.
TICK = 0.1

#: How often the list is read again in any case, and what has expired is forgotten, in seconds.
AFRESH = 120.0

#: After a failure, in seconds.
RETRY = 0.5

#: Sessions looked at in one turn of the event loop; about 0.3 ms.
AT_ONCE = 1000

#: What a client is told, whose token was good once.
REASON = "the token was revoked"


class Revoking:
    """What nodes tell each other may be lost with a connection: then the list is read again, and until then nobody new
    is admitted. So it is at the start (N2)."""

    def __init__(
        self,
        revocations: Revocations,
        broker: Broker,
        registry: Registry,
        *,
        clock: Callable[[], float],
        ttl: float,
        tell: Callable[[bytes, float], Awaitable[None]],
    ) -> None:
        """`ttl`: seconds that a revocation counts which does not say; `tell` sends one to all nodes."""
        self._revocations = revocations
        self._broker = broker
        self._registry = registry
        self._clock = clock
        self._ttl = ttl
        self._tell = tell
        #: Whether the node knows all that is revoked.
        self.current = False
        #: How often something may have been missed so far.
        self._doubts = 0
        #: When it reads the list again.
        self._due = 0.0
        self._news = False

    async def revoke_token(self, jti: str, expires_at: float | None) -> None:
        """One token, on all nodes. Raises CommandError 100, 106."""
        await self._tell(*await self._revocations.revoke_token(jti, self._end(expires_at)))

    async def revoke_user(self, user: str, issued_before: float | None, expires_at: float | None) -> None:
        """A user's tokens, by default all until now."""
        before = time.time() if issued_before is None else issued_before
        await self._tell(*await self._revocations.revoke_user(user, before, self._end(expires_at)))

    def _end(self, expires_at: float | None) -> float:
        return time.time() + self._ttl if expires_at is None else expires_at

    def note(self, entry: bytes, until: float) -> None:
        """Something was revoked."""
        self._revocations.note(entry, until)
        self._news = True

    def lost(self) -> None:
        """From now on something may be missed."""
        self.current = False
        self._doubts += 1
        self._due = 0.0

    def restored(self) -> None:
        """In a cluster it may be the first that we hear of a loss: what belongs here was elsewhere for a moment."""
        self._doubts += 1
        self._due = 0.0

    async def read(self) -> None:
        """Reads the list, if the broker is there."""
        doubts = self._doubts
        if not self._broker.connected:
            return
        try:
            await self._revocations.load()
        except BrokerUnavailable as error:
            log.warning("revocations.not_read", reason=error.reason)
            self._due = self._clock() + RETRY
            return
        self._revocations.prune()
        self._news = True
        if doubts == self._doubts:
            self.current = True
            self._due = self._clock() + AFRESH

    async def run(self) -> None:
        """For ever."""
        while True:
            if self._clock() >= self._due:
                await self.read()
            if self._news:
                self._news = False
                await self._end_sessions()
            await asyncio.sleep(TICK)

    async def _end_sessions(self) -> None:
        for number, session in enumerate(tuple(self._registry.by_id.values()), 1):
            if session.claims is not None and self._revocations.refuse(session.claims):
                session.end(codes.INVALID_TOKEN, REASON)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
