"""Sessions that are told to move: a few each second, those who are too old first."""

import asyncio
from typing import Any

import pytest

from app.gateway import balance, rebalance
from app.gateway.balance import Load
from app.gateway.session import AGE_JITTER
from tests.support.in_process import Node, Peer
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "INTERVAL", 0.05)
    monkeypatch.setattr(rebalance, "TICK", 0.01)
    monkeypatch.setattr(balance, "SETTLE", 0.1)


def moved(peers: list[Peer]) -> list[Peer]:
    return [peer for peer in peers if peer.connection.closed == (3011, "force reconnect")]


class TestAge:
    async def test_a_connection_lasts_so_long_a_quarter_more_or_less(self) -> None:
        async with Node(connection_max_age=100) as node:
            now = node.gateway.now()
            ages = [node.open().session._retire_at - now for _ in range(500)]
            assert 75 <= min(ages) < 80
            assert 120 < max(ages) <= 126

    async def test_a_silent_client_that_is_too_old_is_told_to_come_back(self) -> None:
        async with Node(connection_max_age=0.2) as node:
            began = node.gateway.now()
            ann = await node.connect("ann")
            await until(lambda: moved([ann]), "it is told")
            assert node.gateway.now() - began >= 0.2 * (1 - AGE_JITTER)
            (goodbye,) = ann.of_type("goodbye")
            assert (goodbye["code"], goodbye["reconnect_in_ms"] < 1000) == (3011, True)
            assert node.gateway.counters.moved == {"age": 1}

    async def test_those_who_are_too_old_together_go_one_after_the_other(self) -> None:
        """Invariant 6; and who leaves before its turn is not kept (H4)."""
        async with Node(connection_max_age=0.01, rebalance_rate=20) as node:
            peers = [await node.connect(f"u{number}") for number in range(20)]
            await until(lambda: len(node.gateway.rebalance._old) > 10, "they wait for their turns")
            before, began = len(moved(peers)), node.gateway.now()
            await until(lambda: len(moved(peers)) >= before + 6, "some have gone")
            assert node.gateway.now() - began > 5 / 20 - 0.05
            assert len(moved(peers)) < 20
            for peer in peers:
                peer.lose()
            assert not node.gateway.rebalance._old

    async def test_without_a_limit_nothing_runs(self) -> None:
        async with Node() as node:
            assert not node.gateway.rebalance.wanted
            assert node.open().session._retire_at == float("inf")


class TestShare:
    async def says(self, node: Node, sessions: int, **options: Any) -> None:
        """Another pod, each interval, until the test ends."""
        while True:
            load = Load("other", "other-pod", sessions, 0, options.get("draining", False))
            node.gateway.rebalance.hear(load)
            await asyncio.sleep(0.02)

    async def test_the_excess_goes_and_the_rest_stays(self) -> None:
        async with Node(rebalance_tolerance=0.1, rebalance_rate=1000) as node:
            peers = [await node.connect(f"u{number}") for number in range(50)]
            node.gateway.spawn(self.says(node, 0))
            await until(lambda: len(moved(peers)) == 23, "down to half of the tolerance above the average")
            assert node.gateway.rebalance.refuses(node.gateway.now())
            assert node.gateway.counters.moved == {"share": 23}
            moved(peers)[0].lose()
            assert len(node.gateway.rebalance._leaving) == 22

    async def test_all_may_go_by_themselves_while_some_are_to_be_sent_away(self) -> None:
        async with Node(rebalance_tolerance=0.1) as node:
            moving = node.gateway.rebalance
            moving._excess = 5
            moving._send_away(node.gateway.now())
            assert moving._excess == 0

    async def test_where_only_the_age_is_limited_nobody_is_shed(self) -> None:
        """But who goes for its age does not come back by its cookie, while there are too many."""
        async with Node(connection_max_age=1000) as node:
            peers = [await node.connect(f"u{number}") for number in range(50)]
            node.gateway.spawn(self.says(node, 0))
            moving = node.gateway.rebalance
            decided: list[Load] = []
            moving._tell = decided.append
            await until(lambda: sum(load.above for load in decided) > 3, "it has decided some times")
            assert moving.refuses(node.gateway.now())
            assert not moved(peers)

    async def test_who_drains_says_so_and_sends_nobody_itself(self) -> None:
        told: list[bytes] = []
        async with Node(rebalance_tolerance=0.1, rebalance_rate=1000) as node:
            real = node.broker.send_control

            async def send_control(message: bytes) -> None:
                told.append(message)
                await real(message)

            node.broker.send_control = send_control  # type: ignore[method-assign]
            node.gateway.draining = True
            peers = [await node.connect(f"u{number}") for number in range(50)]
            node.gateway.spawn(self.says(node, 0))
            await until(lambda: len(told) > 5, "it speaks")
            assert told[-1] == b'1["load","node-1","node-1",50,0,true,false,false]'
            assert not moved(peers)
