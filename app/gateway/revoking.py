"""Keeps a node's list of revoked tokens whole, and ends the sessions that came in with one."""

import asyncio
from collections.abc import Callable

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

#: Sessions looked at in one turn of the event loop; about 0.3 ms.
AT_ONCE = 1000

#: What a client is told, whose token was good once.
REASON = "the token was revoked"


class Revoking:
    """What nodes tell each other may be lost with a connection: then the list is read again, and until then nobody new
    is admitted. So it is at the start (N2)."""

    def __init__(
        self, revocations: Revocations, broker: Broker, registry: Registry, clock: Callable[[], float]
    ) -> None:
        self._revocations = revocations
        self._broker = broker
        self._registry = registry
        self._clock = clock
        #: Whether the node knows all that is revoked.
        self.current = False
        self._losses = 0
        self._news = False

    def note(self, entry: bytes, until: float) -> None:
        """Something was revoked."""
        self._revocations.note(entry, until)
        self._news = True

    def lost(self) -> None:
        """From now on something may be missed."""
        self.current = False
        self._losses += 1

    async def read(self) -> None:
        """Reads the list, if the broker is there."""
        losses = self._losses
        if not self._broker.connected:
            return
        try:
            await self._revocations.load()
        except BrokerUnavailable as error:
            log.warning("revocations.not_read", reason=error.reason)
            return
        self._news = True
        self.current = losses == self._losses

    async def run(self) -> None:
        """For ever."""
        due = self._clock() + AFRESH
        while True:
            if self._clock() >= due or not self.current:
                await self.read()
                self._revocations.prune()
                due = self._clock() + AFRESH
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
