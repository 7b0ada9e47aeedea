"""Two releases share one Redis, as in every rollout: what one writes the other reads, and nothing is lost (P6)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.stack import POD_COMMAND
from tests.support.client import Client, close_all
from tests.support.releases import previous_release
from tests.support.stack import API_KEY, Stack
from tests.support.waiting import until

ROOM = "kept:x"
NAMESPACE = "CARILLON_NAMESPACES__KEPT__"
ENV = {
    f"{NAMESPACE}HISTORY_SIZE": "1000",
    f"{NAMESPACE}PRESENCE": "1",
    f"{NAMESPACE}JOIN_LEAVE": "1",
    "CARILLON_PRESENCE_LEAVE_DELAY": "0",
    "CARILLON_OUTBOX_BYTES": "65536",
}
#: Pod 2 runs in the older release's folder, which is the first argument.
IN_ITS_FOLDER = 'if [ "$CARILLON_POD_NAME" = pod-2 ]; then cd "$0"; fi; exec "$@"'
DIRECTIONS = pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 0)], ids=["new to old", "old to new"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("releases")
    older = folder / "older"
    previous_release(older)
    command = ("sh", "-c", IN_ITS_FOLDER, str(older), *POD_COMMAND)
    with Stack(folder, pods=2, workers=1, nginx=False, env=ENV, pod_command=command) as shared:
        runs_in = [Path(f"/proc/{shared.worker_pids(pod)[0]}/cwd").resolve() for pod in (1, 2)]
        assert runs_in[1] == older.resolve() != runs_in[0]
        yield shared


def client(stack: Stack, pod: int, user: str) -> Client:
    return Client(stack.pods[pod].url.replace("http", "ws"), token=stack.token(user))


def call(stack: Stack, pod: int, path: str, **body: Any) -> dict[str, Any]:
    """The server API of one of the pods."""
    answer = httpx.post(f"{stack.pods[pod].internal_url}/api/{path}", json=body, headers={"X-API-Key": API_KEY})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@DIRECTIONS
async def test_publications_and_recovery_cross(stack: Stack, one: int, other: int) -> None:
    """A client goes from one to the other in the midst of it, as a rollout makes it do."""
    room = f"kept:crossing-{one}"
    async with client(stack, one, "stays") as stays, client(stack, one, "goes") as goes:
        joined = await stays.subscribe(room)
        await goes.subscribe(room)
        for number in range(1, 11):
            call(stack, number % 2, "publish", room=room, data=number)
        await goes.heard(room, 10)
        await goes.close()
        for number in range(11, 21):
            await stays.publish(room, number)
            call(stack, other, "publish", room=room, data=-number)
        async with client(stack, other, "goes") as back:
            since = {"epoch": joined["epoch"], "offset": goes.messages(room)[-1]["offset"]}
            assert (await back.ask("subscribe", room=room, since=since))["recovered"]
            call(stack, one, "publish", room=room, data="last")
            heard = await back.heard(room, 21)
            assert [message["offset"] for message in back.messages(room)] == list(range(11, 32))
            assert heard == [data for number in range(11, 21) for data in (number, -number)] + ["last"]
        await until(
            lambda: [message["offset"] for message in stays.messages(room)] == list(range(1, 32)), "all of them"
        )
        past = await stays.ask("history", room=room, since={"epoch": joined["epoch"], "offset": 10})
        assert [each["data"] for each in past["publications"]] == heard


@DIRECTIONS
async def test_a_repeated_key_publishes_once(stack: Stack, one: int, other: int) -> None:
    said = {"room": f"kept:key-{one}", "data": {"b": 1, "a": 2}, "idempotency_key": "k"}
    assert call(stack, one, "publish", **said) == call(stack, other, "publish", **said)


@DIRECTIONS
async def test_presence_crosses(stack: Stack, one: int, other: int) -> None:
    room = f"kept:hall-{one}"
    async with client(stack, one, "ann") as ann:
        await ann.subscribe(room)
        bob = await client(stack, other, "bob").open()
        await bob.subscribe(room)
        await until(lambda: _told(ann, "joined") >= {"bob"}, "who came to the other one")
        for pod in (one, other):
            assert {member["user"] for member in call(stack, pod, "presence", room=room)["members"]} == {"ann", "bob"}
        await bob.close()
        await until(lambda: _told(ann, "left") == {"bob"}, "who left the other one")
        assert [member["user"] for member in call(stack, other, "presence", room=room)["members"]] == ["ann"]


def _told(client: Client, kind: str) -> set[str]:
    return {user for event in client.events if event["type"] == "presence" for user in event.get(kind, ())}


@DIRECTIONS
async def test_control_messages_cross(stack: Stack, one: int, other: int) -> None:
    user = f"user-{one}"
    clients = [await client(stack, pod, user).open() for pod in (one, other)]
    call(stack, one, "send_to_user", user=user, data="hello")
    await asyncio.gather(*(each.heard(f"#{user}", 1) for each in clients))
    ticket = call(stack, one, "tickets", user=user)["ticket"]
    url = stack.pods[other].url.replace("http", "ws")
    async with Client(url, path=f"/ws?ticket={ticket}") as third:
        call(stack, one, "disconnect", user=user)
        assert [await each.closed() for each in (*clients, third)] == [3503] * 3
    await close_all(clients)
