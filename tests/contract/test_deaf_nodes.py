"""Which node leaves because it hears nothing (N1), and that none does where nobody hears (N4)."""

from contextlib import AsyncExitStack

import pytest

from app.gateway import neighbours
from app.testing import TestGateway
from tests.support.proxy import Proxy, proxy
from tests.support.valkey import Server
from tests.support.waiting import until

AFTER = 1.0  # seconds


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "PATIENCE", 0.3)


class Pair:
    """Two nodes with a client each, and what stands between them and Redis."""

    nodes: tuple[TestGateway, TestGateway]
    between: tuple[Proxy, Proxy]

    async def start(self, stack: AsyncExitStack, server: Server, prefix: str) -> "Pair":
        self.between = (
            await stack.enter_async_context(proxy(server.port)),
            await stack.enter_async_context(proxy(server.port)),
        )
        first, second = [
            await stack.enter_async_context(
                TestGateway(
                    redis_url=f"redis://127.0.0.1:{between.port}",
                    key_prefix=prefix,
                    broker_echo_interval=0.1,
                    broker_deaf_after=0.5,
                    broker_backoff_max=0.2,
                )
            )
            for between in self.between
        ]
        self.nodes = first, second
        for node in self.nodes:
            await until(lambda node=node: node.gateway.unready() is None, "ready")  # type: ignore[misc]
        return self

    async def deafened(self, *which: int) -> None:
        for index in which:
            self.between[index].deafen()
        for index in which:
            gateway = self.nodes[index].gateway
            await until(lambda gateway=gateway: gateway.broker.deaf_for > AFTER, "deaf")  # type: ignore[misc]

    async def alone(self) -> list[bool]:
        return [await node.gateway.is_deaf_alone(AFTER) for node in self.nodes]


async def test_who_alone_hears_nothing_knows_it(valkey: Server) -> None:
    async with AsyncExitStack() as stack:
        pair = await Pair().start(stack, valkey, "alone:")
        for node in pair.nodes:
            await node.connect("ann")
        assert await pair.alone() == [False, False]
        await pair.deafened(0)
        assert await pair.alone() == [True, False]


async def test_where_nobody_hears_nobody_is_alone(valkey: Server) -> None:
    """There is no better place for their clients."""
    async with AsyncExitStack() as stack:
        pair = await Pair().start(stack, valkey, "nobody:")
        for node in pair.nodes:
            await node.connect("ann")
        await pair.deafened(0, 1)
        assert await pair.alone() == [False, False]


async def test_who_takes_nobody_is_no_better_place(valkey: Server) -> None:
    async with AsyncExitStack() as stack:
        pair = await Pair().start(stack, valkey, "draining:")
        await pair.nodes[0].connect("ann")
        pair.nodes[1].gateway.draining = True
        await pair.deafened(0)
        assert await pair.alone() == [False, False]


async def test_who_has_no_clients_stays(valkey: Server) -> None:
    """To start again and again would help nobody."""
    async with AsyncExitStack() as stack:
        pair = await Pair().start(stack, valkey, "empty:")
        await pair.deafened(0)
        assert await pair.alone() == [False, False]
