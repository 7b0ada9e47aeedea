"""The paced goodbye: the sessions of a node that goes away are closed one after the other, not all at once (N6)."""

import asyncio
import random
from collections.abc import Collection, Iterable

from app import codes
from app.gateway.pace import Pace
from app.gateway.registry import Registry
from app.gateway.session import FLUSH_TIMEOUT, Session
from app.telemetry import metrics

#: Between two looks, in seconds.
TICK = 0.02

#: Before the first goodbye, in seconds: the pod's other nodes notice the same signal within a tenth, and until they do
#: they would take in whom this one sends away.
HEAD_START = 0.2

#: Goodbyes in one turn of the event loop, where many are due together.
AT_ONCE = 100


async def drain(registry: Registry, farewells: Collection[asyncio.Task[None]], timeout: float, slowest: float) -> None:
    """Says `goodbye` to all, evenly spread, and waits until they are gone, with `farewells`: `timeout` seconds at most.

    `slowest`: closes per second; few sessions do not take the whole time. Nobody new may come in meanwhile, but for
    those whose handshake was under way."""
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    if len(registry):
        await asyncio.sleep(min(HEAD_START, timeout / 4))
    pace = Pace(now(), deadline - flush_time(timeout), slowest)
    staying = in_any_order(registry.by_id.values())
    while True:
        await say_goodbye(staying, pace.due(len(staying), now()))
        staying = staying or in_any_order(registry.by_id.values())
        metrics.DRAIN_REMAINING.set(len(registry))
        if not (len(registry) or farewells) or now() >= deadline:
            return
        await asyncio.sleep(TICK)


async def say_goodbye(staying: list[Session], count: int) -> None:
    """To the last `count` of them, who leave the list."""
    for number in range(count):
        staying.pop().end(codes.SHUTDOWN)
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)


def flush_time(timeout: float) -> float:
    """What the last ones need after their turn, for what is unsent before their goodbye (O3)."""
    return min(FLUSH_TIMEOUT, timeout / 4)


def in_any_order(sessions: Iterable[Session]) -> list[Session]:
    """Who has not been told yet; shuffled, as those who came together would come together again elsewhere."""
    staying = [session for session in sessions if not session.ended]
    random.shuffle(staying)
    return staying
