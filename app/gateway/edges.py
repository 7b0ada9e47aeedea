"""Paced goodbyes to the sessions that came through one edge, which goes away (N6): it knows nobody but us, and they
know nothing of it."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from app import codes
from app.codes import CommandError
from app.gateway.drain import TICK, flush_time, in_any_order, say_goodbye
from app.gateway.pace import Pace
from app.gateway.rates import Rate
from app.gateway.registry import Registry
from app.gateway.session import Session
from app.telemetry import logs

log = logs.get("edges")

#: How an edge calls itself in `X-Carillon-Edge`. Not to be guessed: whoever knows the name may ask for the goodbyes.
EDGE_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")

#: Between two looks for sessions whose handshake was under way, in seconds.
LOOK_AGAIN = 1.0

#: Calls of edges that go away, per second: each looks at all sessions, and anybody on the internal network can call.
CALLS = 10

#: Names that we remember to have passed on to all nodes.
REMEMBERED = 256


class Edges:
    """`tell` says to all nodes that an edge goes; `slowest`: closes per second at least; `clock`: the event loop's."""

    def __init__(
        self,
        registry: Registry,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        tell: Callable[[str, float], None],
        slowest: float,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._spawn = spawn
        self._tell = tell
        self._slowest = slowest
        self._clock = clock
        #: Bounded by the edges that have sessions here.
        self._going: set[str] = set()
        self._told: dict[str, None] = {}
        self._calls, self._calls_state = Rate(CALLS, 10 * CALLS), 0.0
        self._has_warned = False

    def not_trusted(self, peer: str) -> None:
        """Somebody calls itself an edge whose word does not count. Said once, as clients can say so too."""
        if not self._has_warned:
            self._has_warned = True
            log.warning("edge.not_trusted", peer=peer, setting="CARILLON_TRUSTED_PROXIES")

    def drain(self, edge: str, window: float) -> None:
        """Says `goodbye` to its sessions, on all nodes, within `window` seconds. Asked again, it sees to those who came
        since. Raises CommandError 111 where such calls come faster than edges would make them."""
        state = self._calls.next_state(self._calls_state, self._clock())
        if state is None:
            raise CommandError(codes.TOO_MANY_REQUESTS)
        self._calls_state = state
        if edge not in self._told:
            self._tell(edge, window)
        self.hear(edge, window)

    def hear(self, edge: str, window: float) -> None:
        """A node was asked to, and all are told."""
        self._told[edge] = None
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        if edge not in self._going and (staying := self._sessions(edge)):
            log.info("edge.goes", sessions=len(staying), seconds=window)
            self._going.add(edge)
            self._spawn(self._send_away(edge, staying, window))

    async def _send_away(self, edge: str, staying: list[Session], window: float) -> None:
        now = self._clock
        end = now() + window
        pace = Pace(now(), end - flush_time(window), self._slowest)
        look = now() + LOOK_AGAIN
        try:
            while now() < end:
                await say_goodbye(staying, pace.due(len(staying), now()))
                await asyncio.sleep(TICK)
                if now() >= look:
                    staying, look = self._sessions(edge), now() + LOOK_AGAIN
            await say_goodbye(staying, len(staying))  # a stalled loop may have come to the end at once
        finally:
            self._going.discard(edge)

    def _sessions(self, edge: str) -> list[Session]:
        """Who came through it and has not been told yet."""
        return in_any_order(session for session in self._registry.by_id.values() if session.edge == edge)
