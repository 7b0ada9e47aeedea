"""One member stalls; two hundred others do not notice, and memory stays bounded (O1, O2)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from local.ports import HOST
from tests.support.client import Client, close_all, open_all
from tests.support.scrape import sample
from tests.support.stack import Stack
from tests.support.stalled import StalledClient, unsent_bytes
from tests.support.waiting import until

OTHERS = 200
OUTBOX = 65_536  # bytes
PAYLOAD = "x" * 4000
LONGEST = 500  # publications; far more than all buffers on the way can hold

#: SO_SNDBUF is 64 KiB; the kernel doubles what it is given, and may exceed that by one segment. Without: megabytes.
SEND_BUFFER = 2 * 65_536 + 65_536

CONFIG = """
[namespaces.patient]
slow_consumer = "disconnect"

[namespaces.kept]
history_size = 1000

[namespaces.newest]
slow_consumer = "conflate"

[namespaces.leaky]
slow_consumer = "drop_oldest"
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("slow")
    config = folder / "carillon.toml"
    config.write_text(CONFIG)
    env = {"CARILLON_CONFIG": str(config), "CARILLON_OUTBOX_BYTES": str(OUTBOX)}
    with Stack(folder, pods=1, workers=1, env=env) as shared:
        yield shared


@pytest.fixture(params=["direct", "through Nginx"])
def port(stack: Stack, request: pytest.FixtureRequest) -> int:
    return stack.pods[0].public_port if request.param == "direct" else stack.port


@pytest.fixture
async def others(stack: Stack, port: int) -> AsyncIterator[list[Client]]:
    clients = [Client(f"ws://{HOST}:{port}", token=stack.token(f"user-{number}")) for number in range(OTHERS)]
    await open_all(clients)
    yield clients
    await close_all(clients)


class Flood:
    """Publishes until a counter of the pod moves, and checks what everybody else got."""

    def __init__(self, stack: Stack, room: str, others: list[Client]) -> None:
        self.stack, self.room, self.others = stack, room, others
        self.sent = 0

    async def until_counted(self, metric: str, policy: str) -> None:
        before = sample(self.stack, metric, policy=policy)
        while sample(self.stack, metric, policy=policy) == before:
            assert self.sent < LONGEST, f"{metric} of {policy} has not moved"
            for _ in range(10):
                await self.publish(PAYLOAD)

    async def publish(self, data: str) -> None:
        # A key for conflation comes with a client's publication only.
        await self.others[0].publish(self.room, [self.sent, data], key="the one key")
        self.sent += 1

    async def everybody_else_has_all(self) -> None:
        for client in self.others[1:]:
            heard = await client.heard(self.room, self.sent)
            assert [number for number, _ in heard] == list(range(self.sent))
            assert not any("skipped" in message for message in client.messages(self.room))
        assert all(client.close_code is None for client in self.others)


def resident(stack: Stack) -> int:
    pages = Path(f"/proc/{stack.worker_pids()[0]}/statm").read_text().split()[1]
    return int(pages) * 4096


async def join_all(clients: list[Client], room: str) -> None:
    await asyncio.gather(*(client.subscribe(room) for client in clients))


async def test_disconnect_sends_the_stalled_member_away(stack: Stack, port: int, others: list[Client]) -> None:
    room = f"patient:{port}"
    await join_all(others, room)
    flood = Flood(stack, room, others)
    before = resident(stack)
    async with StalledClient(HOST, port, stack.token("stalled"), room) as stalled:
        await flood.until_counted("carillon_slow_consumers_total", policy="disconnect")
        await flood.everybody_else_has_all()
        assert max(unsent_bytes(stack.pods[0].public_port), unsent_bytes(stack.port)) <= SEND_BUFFER
        assert resident(stack) - before < 30_000_000
        events = await stalled.read_all()
        if stalled.close_code is not None and events[-1]["type"] == "goodbye":
            assert events[-1]["code"] == stalled.close_code == 3008
    await until(lambda: sample(stack, "carillon_outbox_bytes") == 0, "nothing waits for it any more")


async def test_who_stalls_twice_within_a_minute_is_not_replayed_to_again(stack: Stack) -> None:
    """R3: no endless loop of replays and closes."""
    port, room = stack.pods[0].public_port, "kept:loop"
    for _ in range(2):
        before = sample(stack, "carillon_slow_consumers_total", policy="disconnect")
        async with StalledClient(HOST, port, stack.token("laggard"), room) as stalled:
            while sample(stack, "carillon_slow_consumers_total", policy="disconnect") == before:
                for _ in range(20):
                    top = stack.publish(room, PAYLOAD)
            await stalled.read_all()
    since = {"epoch": top["epoch"], "offset": top["offset"] - 1}
    recovered = {}
    for user in ("laggard", "bystander"):
        async with Client(stack.ws_url, token=stack.token(user)) as client:
            recovered[user] = (await client.ask("subscribe", room=room, since=since))["recovered"]
    assert recovered == {"laggard": False, "bystander": True}


@pytest.mark.parametrize(("namespace", "policy"), [("leaky", "drop_oldest"), ("newest", "conflate")])
async def test_lossy_policies_keep_the_member_and_tell_what_it_missed(
    stack: Stack, port: int, others: list[Client], namespace: str, policy: str
) -> None:
    room = f"{namespace}:{port}"
    await join_all(others, room)
    flood = Flood(stack, room, others)
    async with StalledClient(HOST, port, stack.token("stalled"), room) as stalled:
        await flood.until_counted("carillon_skipped_total", policy=policy)
        await flood.everybody_else_has_all()
        assert max(unsent_bytes(stack.pods[0].public_port), unsent_bytes(stack.port)) <= SEND_BUFFER
        assert sample(stack, "carillon_outbox_bytes") <= OUTBOX
        await others[0].publish(room, "end")
        # A ping may be among them: the heartbeat goes on.
        events = [event for event in await stalled.read_all() if event["type"] == "message"]
    numbers = [event["data"][0] for event in events[:-1]]
    assert numbers == sorted(numbers)
    expected = 0
    for event in events[:-1]:
        expected += event.get("skipped", 0)
        assert event["data"][0] == expected, "each gap is told by the message after it (O2)"
        expected += 1
    assert expected + events[-1].get("skipped", 0) == flood.sent
