"""Event loop lag."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.telemetry import metrics
from app.telemetry.loop_lag import INTERVAL, LoopLag


@pytest.fixture
async def lag() -> AsyncIterator[LoopLag]:
    lag = LoopLag()
    lag.start()
    yield lag
    lag.stop()


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_blocked_loop_shows_at_once_and_is_remembered(lag: LoopLag) -> None:
    block(INTERVAL + 0.1)
    assert lag.worst >= 0.1
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the timer, which is due, has run now
    assert metrics.LOOP_LAG._value.get() == lag.worst
    assert 0.1 <= lag.worst < 0.3


async def test_without_a_block_there_is_none(lag: LoopLag) -> None:
    assert lag.worst == 0.0


async def test_after_stop_nothing_grows(lag: LoopLag) -> None:
    lag.stop()
    block(INTERVAL + 0.1)
    assert lag.worst == 0.0
