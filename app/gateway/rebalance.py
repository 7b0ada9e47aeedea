"""Tells sessions to connect anew, a few each second: those above `connection_max_age`, and a pod's excess."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable

from msgspec import structs

from app import codes
from app.gateway.balance import USUAL_TOLERANCE, Balance, Load
from app.gateway.rates import Rate
from app.gateway.registry import Registry
from app.gateway.session import Session
from app.settings import Settings
from app.telemetry import metrics
from app.telemetry.counters import Counters

#: Between two looks, in seconds.
TICK = 0.1


class Rebalance:
    """`tell` sends what this node holds to all nodes, some time later; `draining`: whether it goes away."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        counters: Counters,
        *,
        node: str,
        pod: str,
        tell: Callable[[Load], None],
        draining: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._counters = counters
        self._node = node
        self._pod = pod
        self._tell = tell
        self._draining = draining
        #: Whether there is anything to do at all.
        self.wanted = bool(settings.connection_max_age or settings.rebalance_tolerance)
        self._sheds = settings.rebalance_tolerance > 0
        self._balance = Balance(pod, settings.rebalance_tolerance or USUAL_TOLERANCE)
        self._rate = Rate(settings.rebalance_rate, math.ceil(settings.rebalance_rate * TICK))
        self._rate_state = 0.0
        #: Sessions that are too old, in the order in which that was seen.
        self._old: dict[Session, None] = {}
        #: Sessions that were told to go and are still there.
        self._leaving: set[Session] = set()
        #: How many of the excess are still to go until the next decision.
        self._excess = 0
        #: When how many were sent away, as far as it is not long ago.
        self._sent: deque[tuple[float, int]] = deque()

    def hear(self, load: Load) -> None:
        """A node said what it holds."""
        if not self.wanted:
            return
        self._balance.hear(load, asyncio.get_running_loop().time())

    def retire(self, session: Session) -> None:
        """The session is too old: it goes when its turn comes."""
        self._old[session] = None

    def forget(self, session: Session) -> None:
        """It is gone."""
        self._old.pop(session, None)
        self._leaving.discard(session)

    def refuses(self, now: float) -> bool:
        """Whether who comes with this pod's own cookie is to go elsewhere. Free where nothing is wanted."""
        return self._balance.refuses(now)

    async def run(self) -> None:
        """For ever."""
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            if now() >= due:
                self._decide(now())
                due = now() + self._balance.interval
            if not self._draining():
                self._send_away(now())
            await asyncio.sleep(TICK)

    def _decide(self, now: float) -> None:
        while self._sent and self._sent[0][0] < now - self._balance.on_the_way:
            self._sent.popleft()
        moving = sum(count for _, count in self._sent)
        staying = len(self._registry) - len(self._leaving)
        own = Load(self._node, self._pod, staying, moving, self._draining())
        excess = self._balance.decide(own, now)
        self._excess = excess if self._sheds else 0
        metrics.ABOVE_SHARE.set(self._balance.above)
        self._tell(structs.replace(own, above=self._balance.above, refuses=self._balance.refuses(now)))

    def _send_away(self, now: float) -> None:
        count = 0
        anyone: list[Session] = []
        while (self._old or self._excess) and (state := self._rate.next_state(self._rate_state, now)) is not None:
            self._rate_state = state
            if self._old:
                session, reason = next(iter(self._old)), "age"
                del self._old[session]
            else:
                anyone = anyone or list(self._registry.by_id.values())
                if not anyone:  # all have gone by themselves
                    self._excess = 0
                    break
                session, reason = random.choice(anyone), "share"
                self._excess -= 1
            if not session.ended:
                count += 1
                self._leaving.add(session)
                self._counters.moved[reason] += 1
                session.end(codes.FORCE_RECONNECT)
        if count:
            self._sent.append((now, count))
