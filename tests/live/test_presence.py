"""Who is in a room, over two pods: what a reconnect and a killed worker look like to the others (A1)."""

import asyncio
import time
from typing import Any

from tests.support.client import Client, close_all
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import until

ROOM = "hall:x"
LEAVE_DELAY = 1.0
TTL = 3.0  # two thirds of it are longer than the delay and a batch: a leave that is told, is told before the dead are
NAMESPACE = "CARILLON_NAMESPACES__HALL__"


def changes(client: Client, kind: str) -> list[str]:
    """Who joined or left, in order, as this client was told."""
    events = [event for event in client.events if event["type"] == "presence"]
    return [user for event in events for user in event.get(kind, ())]


def asked(stack: Stack) -> dict[str, Any]:
    answer = stack.post("/api/presence", {"room": ROOM})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_reconnect_is_silent_and_a_killed_worker_is_missed(make_stack: StackFactory) -> None:
    env = {f"{NAMESPACE}PRESENCE": "1", f"{NAMESPACE}JOIN_LEAVE": "1"}
    env |= {"CARILLON_PRESENCE_TTL": str(TTL), "CARILLON_PRESENCE_LEAVE_DELAY": str(LEAVE_DELAY)}
    stack = make_stack(workers=1, nginx=False, env=env)
    stays, dies = (pod.url.replace("http", "ws") for pod in reversed(stack.pods))

    async def enter(url: str, user: str) -> Client:
        client = await Client(url, token=stack.token(user)).open()
        await client.subscribe(ROOM)
        return client

    watch = await enter(stays, "watch")
    ann, carl = await asyncio.gather(enter(dies, "ann"), enter(dies, "carl"))
    bobs = await asyncio.gather(enter(dies, "bob"), enter(stays, "bob"))
    await until(lambda: sorted(changes(watch, "joined")) == ["ann", "bob", "carl", "watch"], "all joined, once")
    assert (asked(stack)["sessions"], asked(stack)["users"]) == (5, 4)

    await carl.close()
    carl = await enter(stays, "carl")
    stack.kill_worker(pod=1)
    began = time.monotonic()
    assert users_of(await watch.ask("presence", room=ROOM)) == ["ann", "bob", "bob", "carl", "watch"]
    await until(lambda: "ann" in changes(watch, "left"), "Ann is missed")
    assert time.monotonic() - began < TTL + TTL / 3 + 10, "the time to live, one refresh, one batch, and a busy machine"
    assert changes(watch, "left") == ["ann"], "Bob is still there, on the other pod, and Carl was back in time"
    assert sorted(changes(watch, "joined")) == ["ann", "bob", "carl", "watch"]
    assert users_of(await watch.ask("presence", room=ROOM)) == ["bob", "carl", "watch"]
    await close_all([watch, ann, carl, *bobs])


def users_of(reply: dict[str, Any]) -> list[str]:
    return sorted(member["user"] for member in reply["members"])
