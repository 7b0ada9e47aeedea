"""What the server does to a user, whichever pods the user's sessions are on."""

import asyncio
import time

import pytest

from tests.support.client import Client, Ended, close_all
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until


def on_each_pod(stack: Stack, token: str) -> list[Client]:
    return [Client(pod.url.replace("http", "ws"), token=token) for pod in stack.pods]


async def call(stack: Stack, path: str, **body: object) -> None:
    answer = await asyncio.to_thread(stack.post, f"/api/{path}", body)
    assert answer.status_code == 200, answer.text


async def refused(client: Client, code: int) -> bool:
    """Whether the credentials get this close code, and nothing else."""
    with pytest.raises(Ended, match=f"ended with {code}"):
        await client.open()
    return True


async def until_admitted(client: Client) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.open()
            except Ended:
                continue
            return


async def test_rooms_rights_and_tokens_of_a_user_on_two_pods(make_stack: StackFactory) -> None:
    stack = make_stack(workers=1)
    token = stack.token("ann")
    both = on_each_pod(stack, token)
    for client in both:
        await client.open()
        for room in ("chat:x", "chat:y", "chat:z"):
            await client.subscribe(room)

    await call(stack, "unsubscribe", user="ann", room="chat:x")
    for client in both:
        told = await client.event("unsubscribed")
        assert (told["room"], told["code"]) == ("chat:x", 3503)
        client.events.remove(told)

    await call(stack, "refresh", user="ann", rooms=["chat:y"])
    for client in both:
        told = await client.event("unsubscribed")
        assert (told["room"], told["code"]) == ("chat:z", 3507)

    await call(stack, "revoke", user="ann", issued_before=time.time() + 100)
    assert [await client.closed() for client in both] == [3500, 3500]
    for client in both:
        assert await refused(client, 3500)

    # A node that starts knows it, and the nodes put back what Redis has lost.
    await asyncio.to_thread(stack.restart_valkey)
    stack.wait_ready()
    killed = stack.kill_worker(2)
    await until(lambda: stack.worker_pids(2) and killed not in stack.worker_pids(2), "another worker starts")
    await asyncio.to_thread(stack.wait_ready)
    assert await refused(both[1], 3500)


async def test_a_users_connections_are_counted_on_all_pods(make_stack: StackFactory) -> None:
    """Those of a node that was killed stop counting after a minute (tests/contract/test_redis_rules.py)."""
    stack = make_stack(workers=1, env={"CARILLON_MAX_USER_CONNECTIONS": "3"})
    token = stack.token("ann")
    first, second = on_each_pod(stack, token)
    third, fourth = on_each_pod(stack, token)
    for client in (first, second, third):
        await client.open()
    assert await refused(fourth, 3504)
    await first.close()
    await until_admitted(fourth)
    await close_all([second, third, fourth])
