"""A worker dies, Valkey dies or is away: who is not concerned does not notice, the others come back."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.support.client import Client, Refused, close_all, open_all
from tests.support.scrape import sample
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until


def unready(stack: Stack) -> set[str]:
    """Why pods are not ready; empty where all are."""
    answers = [httpx.get(f"{pod.internal_url}/readyz", trust_env=False) for pod in stack.pods]
    return {answer.json()["state"] for answer in answers if answer.status_code != 200}


def pid_of(client: Client) -> int:
    return int(client.welcome["node"].split("-")[-2])


async def reconnected(client: Client) -> None:
    """Opens again, as often as it takes."""

    async def attempt() -> bool:
        try:
            await client.open()
        except (OSError, WebSocketException):
            return False
        return True

    await eventually(attempt, "the client comes back")


async def eventually(attempt: Callable[[], Awaitable[bool]], what: str, timeout: float = 15) -> None:
    async with asyncio.timeout(timeout):
        while not await attempt():  # noqa: ASYNC110 - the attempt itself is what is waited for
            await asyncio.sleep(0.05)


async def test_a_killed_worker_harms_nobody_else_and_its_clients_come_back(make_stack: StackFactory) -> None:
    stack = make_stack()
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(60)]
    await open_all(clients)
    await asyncio.gather(*(client.subscribe("demo:kill") for client in clients))
    killed = stack.kill_worker(pod=1)
    victims = [client for client in clients if pid_of(client) == killed]
    others = [client for client in clients if client not in victims]
    assert victims
    assert others
    stack.publish("demo:kill", "while it is dead")
    for client in others:
        assert await client.heard("demo:kill", 1) == ["while it is dead"]
    for client in victims:
        assert await client.closed() == 1006
        await reconnected(client)
        await client.subscribe("demo:kill")
        assert pid_of(client) != killed
    stack.publish("demo:kill", "after")
    for client in clients:
        assert (await client.heard("demo:kill", 1 if client in victims else 2))[-1] == "after"
    assert all(client.close_code is None for client in others)
    await close_all(clients)


async def test_after_a_restart_of_valkey_every_worker_hears_again_within_five_seconds(
    make_stack: StackFactory,
) -> None:
    stack = make_stack(env={"CARILLON_BROKER_TIMEOUT": "2"})
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(40)]
    await open_all(clients)
    assert len({client.welcome["node"] for client in clients}) == 4
    await asyncio.gather(*(client.subscribe("demo:restart") for client in clients))
    await asyncio.gather(*(client.subscribe("chat:restart") for client in clients))
    stack.stop_valkey()
    await until(lambda: unready(stack) == {"broker_unreachable"}, "readiness says so")
    with pytest.raises(Refused) as refused:
        await clients[0].publish("demo:restart", "nobody can take this")
    assert refused.value.code == 100
    stack.start_valkey()
    await until(lambda: not unready(stack), "the pods are ready again", timeout=5)
    stack.publish("demo:restart", "again")
    stack.publish("chat:restart", "again")
    for client in clients:
        for room in ("demo:restart", "chat:restart"):
            assert await client.heard(room, 1, timeout=5) == ["again"]
            told = [event for event in client.events if event["type"] == "insufficient" and event["room"] == room]
            assert len(told) == 1, "P1: once, as what came between is unknown"
    assert all(client.close_code is None for client in clients)
    await close_all(clients)


async def test_without_valkey_a_dying_worker_takes_no_other_with_it(make_stack: StackFactory) -> None:
    """N2: its successor starts unready; one that failed to boot would make gunicorn stop all the others."""
    stack = make_stack(pods=1, nginx=False)
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(20)]
    await open_all(clients)
    stack.stop_valkey()
    await until(lambda: unready(stack) == {"broker_unreachable"}, "readiness says so")
    killed = stack.kill_worker()
    others = [client for client in clients if pid_of(client) != killed]
    assert others
    await until(lambda: len(stack.worker_pids()) == 2 and killed not in stack.worker_pids(), "a successor starts")
    await until(lambda: sample(stack, "carillon_connections") == len(others), "the successor serves, without clients")
    for client in others:
        assert (await client.ask("ping"))["type"] == "pong"
    stack.start_valkey()
    await until(lambda: not unready(stack), "all workers hear again")
    await close_all(clients)


@pytest.mark.long
@pytest.mark.timeout(90)
async def test_valkey_away_for_twenty_seconds_closes_nobody_and_new_ones_wait(make_stack: StackFactory) -> None:
    """N4: connected clients stay, new ones get 503, never 502, and are served within 3 s of its return."""
    stack = make_stack()
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(20)]
    await open_all(clients)
    stack.stop_valkey()
    await until(lambda: unready(stack) == {"broker_unreachable"}, "readiness says so")
    loop = asyncio.get_running_loop()
    returns = loop.time() + 20
    statuses = []

    async def attempt() -> bool:
        newcomer = Client(stack.ws_url, token=stack.token("newcomer"))
        try:
            await newcomer.open()
        except InvalidStatus as refused:
            statuses.append((refused.response.status_code, "Retry-After" in refused.response.headers))
            return False
        await newcomer.close()
        return True

    while loop.time() < returns:
        assert not await attempt()
        await asyncio.sleep(0.2)
    assert set(statuses) == {(503, True)}
    stack.start_valkey()
    began = loop.time()
    await eventually(attempt, "a newcomer is served")
    assert loop.time() - began < 10
    assert set(statuses) == {(503, True)}
    assert all(client.close_code is None for client in clients)
    await close_all(clients)
