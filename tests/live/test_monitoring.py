"""Real Prometheus and Alertmanager beside a real stack: every alert is seen firing and ending, every panel has data."""

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from local.stack import Pod
from tests.support.client import Client, Refused, close_all, open_all
from tests.support.dashboard import EVERYTHING, load, queries
from tests.support.observing import RULES, Observers, observing
from tests.support.stack import API_KEY, Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

#: Seconds: the longest wait of a rule, what it looks back at, and a busy machine.
PATIENCE = 60

CAPACITY = 20

#: Panels that have nothing to show here, and why.
EMPTY = {
    "Memory used": "only where a container or service has a limit",
    "Sessions moved": "connection_max_age and rebalance_tolerance are off",
    "Full outboxes by policy": "no client is slow",
    "Publications left out by policy": "no client is slow",
    "Hooks": "the application has none",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three pods of one worker; the third one drains slowly."""
    env = {
        "CARILLON_MAX_CONNECTIONS": str(CAPACITY),
        "CARILLON_MAX_SUBSCRIPTIONS": "2",
        "CARILLON_BROKER_TIMEOUT": "1",
        "CARILLON_NAMESPACES__CHAT__HISTORY_SIZE": "10",
    }
    slow_drain = {3: {"CARILLON_DRAIN_TIMEOUT": "120", "CARILLON_DRAIN_RATE": "0"}}
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, pods=3, workers=1, nginx=False, env=env, env_of_pod=slow_drain) as started:
        yield started


@pytest.fixture(scope="module")
def observers(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observers]:
    with observing(stack, tmp_path_factory.mktemp("observers") / "observers") as found:
        yield found


async def test_every_panel_has_data(stack: Stack, observers: Observers) -> None:
    values = {**EVERYTHING, "__rate_interval": "20s"}
    asked = {(query.panel, query.filled_in(values)) for query in queries(load("fleet"))}
    pod = f"ws://127.0.0.1:{stack.pods[0].public_port}"
    clients = [Client(pod, token=stack.token(f"user-{number}")) for number in range(CAPACITY)]
    await open_all(clients)
    ann = clients[0]
    position = await ann.subscribe("chat:panels")
    stack.publish("chat:panels", "one")
    await ann.heard("chat:panels", 1)
    await ann.ask("unsubscribe", room="chat:panels")
    await ann.ask("subscribe", room="chat:panels", since={"epoch": position["epoch"], "offset": position["offset"]})
    await ann.subscribe("two")
    with pytest.raises(Refused):
        await ann.subscribe("three")  # max_subscriptions
    with pytest.raises(InvalidStatus):
        await Client(pod).open()  # max_connections
    await clients.pop().close()

    def without_data() -> set[str]:
        return {
            panel for panel, query in asked if not any(math.isfinite(value) for _, value in observers.values(query))
        }

    async with meanwhile(publishing(stack.pods[0], "chat:panels")):
        with suppress(AssertionError):
            await until(lambda: without_data() <= EMPTY.keys(), "panels have data", PATIENCE)
        assert without_data() <= EMPTY.keys()
        [deliveries] = [query for panel, query in asked if panel == "Deliveries"]
        assert [labels for labels, _ in observers.values(deliveries)] == [{"namespace": "chat"}], "the rooms', not ours"
    await close_all(clients)


async def test_every_alert_fires_and_ends(stack: Stack, observers: Observers) -> None:
    await until(lambda: observers.firing() == set(), "nothing fires", PATIENCE)

    seen: set[str] = set()

    async def fire(*alerts: tuple[str, str]) -> None:
        awaited = set(alerts)
        seen.update(name for name, _ in alerts)

        def all_seen() -> bool:
            awaited.difference_update(observers.firing())
            return not awaited

        with suppress(AssertionError):
            await until(all_seen, "all fire", PATIENCE)
        assert awaited == set()

    one, two, three = (f"ws://127.0.0.1:{pod.public_port}" for pod in stack.pods)
    nearly_all = [Client(one, token=stack.token("full")) for _ in range(CAPACITY - 2)]
    draining = [Client(three, token=stack.token("late")) for _ in range(2)]
    await open_all([*nearly_all, *draining])
    await nearly_all[0].subscribe("chat:alerts")
    stack.publish("chat:alerts", "one")

    async with meanwhile(storm(two)), meanwhile(lag(stack.worker_pids(1)[0])):
        stack.signal_pod(3, signal.SIGTERM)
        observers.status_page.broken = True
        await fire(
            ("CarillonNearlyFull", "pod-1"),
            ("CarillonLoopLag", "pod-1"),
            ("CarillonDrainStuck", "pod-3"),
            ("CarillonReconnectStorm", "carillon-gateway"),
            ("CarillonUnavailable", "carillon-edge"),
        )
    observers.status_page.broken = False
    stack.kill_pod(3)
    the_rest = [Client(one, token=stack.token("full")) for _ in range(2)]
    await open_all(the_rest)
    async with meanwhile(storm(one)):
        await fire(("CarillonPodUnavailable", "pod-3"), ("CarillonUpgradesRefused", "carillon-gateway"))

    stack.stop_valkey()
    async with meanwhile(publishing(stack.pods[0], "chat:alerts")):
        await fire(
            ("CarillonDeaf", "pod-1"),
            ("CarillonDeaf", "pod-2"),
            ("CarillonUnavailable", "carillon-gateway"),
            ("CarillonPublishErrors", "pod-1"),
        )
        assert ("CarillonPodUnavailable", "pod-3") not in observers.firing(), "CarillonUnavailable goes without saying"
    stack.start_valkey()
    await fire(("CarillonHistoryInsufficient", "pod-1"))

    assert seen == set(re.findall(r"- alert: (\w+)", RULES.read_text("utf-8")))
    await close_all([*nearly_all, *the_rest, *draining])
    stack.start_pod(3)
    stack.wait_ready()
    await until(lambda: observers.firing() == set(), "all alerts end", PATIENCE)


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that goes on until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def storm(url: str) -> None:
    """Ten clients a second who connect, or are refused, and go."""
    while True:
        with suppress(InvalidStatus, OSError):
            async with Client(url):
                pass
        await asyncio.sleep(0.1)  # the pace of the load


async def lag(worker: int) -> None:
    """Stops a worker for half of the time, as a host does that is overcommitted."""
    try:
        while True:
            os.kill(worker, signal.SIGSTOP)
            await asyncio.sleep(0.5)
            os.kill(worker, signal.SIGCONT)
            await asyncio.sleep(0.5)
    finally:
        os.kill(worker, signal.SIGCONT)


async def publishing(pod: Pod, room: str) -> None:
    """A backend that tries again and again."""
    async with httpx.AsyncClient(base_url=pod.internal_url, headers={"X-API-Key": API_KEY}, trust_env=False) as api:
        while True:
            await api.post("/api/publish", json={"room": room, "data": "two"}, timeout=10)
            await asyncio.sleep(0.1)
