"""A supervised connection (app/broker/link.py)."""

import asyncio

import pytest

from app.broker.connection import Connection, NotSent
from app.broker.link import Link
from app.broker.stats import Stats


async def test_who_waits_for_a_connection_is_told_that_there_will_be_none() -> None:
    """A primary that another one has replaced in the cluster: a command must not wait for it until its time is over."""

    async def dial() -> Connection:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def never(*_: Connection) -> None:
        raise AssertionError

    link = Link(dial, name="test", timeout=60, backoff_max=1, stats=Stats(), up=never, down=never)
    link.start()
    waiting = asyncio.ensure_future(link.ready())
    await asyncio.sleep(0)
    await link.stop()
    with pytest.raises(NotSent):
        await waiting
