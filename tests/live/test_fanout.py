"""One publish, every socket, on any pod: through Nginx, four workers and Valkey, with real clients."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.support.client import Client, close_all, open_all
from tests.support.fan_out import everybody_hears_all
from tests.support.stack import Stack

CLIENTS = 200
PUBLICATIONS = 1000


@pytest.fixture
async def crowd(stack: Stack) -> AsyncIterator[list[Client]]:
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(CLIENTS)]
    await open_all(clients)
    yield clients
    await close_all(clients)


async def test_every_client_gets_every_message_once_and_in_order(stack: Stack, crowd: list[Client]) -> None:
    served = Counter(client.welcome["node"] for client in crowd)
    assert len(served) == 4, served
    assert min(served.values()) >= CLIENTS // 20, f"Nginx and the kernel spread them badly: {served}"

    await everybody_hears_all(stack, crowd, "demo:all", publications=PUBLICATIONS)


async def test_a_room_without_history_has_no_positions(stack: Stack) -> None:
    """P1."""
    async with Client(stack.ws_url, token=stack.token("ann")) as ann, Client(stack.ws_url, token=stack.token()) as bob:
        assert (await ann.subscribe("chat:plain"))["offset"] == 0
        await bob.subscribe("chat:plain")
        assert await bob.publish("chat:plain", "hi") | {"id": 0} == {"type": "ok", "id": 0, "epoch": "", "offset": 0}
        await ann.heard("chat:plain", 1)
        assert "offset" not in ann.messages("chat:plain")[0]


async def test_what_a_key_has_published_is_not_published_again_on_another_pod(stack: Stack) -> None:
    """P4: over HTTP and by socket, wherever it lands."""
    async with Client(stack.ws_url, token=stack.token("ann")) as ann, Client(stack.ws_url, token=stack.token()) as bob:
        await ann.subscribe("demo:once")
        first = stack.publish("demo:once", {"n": 1}, idempotency_key="k1")
        again = await bob.publish("demo:once", {"n": 1}, idempotency_key="k1")
        assert (again["epoch"], again["offset"]) == (first["epoch"], first["offset"])
        stack.publish("demo:once", "end")
        assert await ann.heard("demo:once", 2) == [{"n": 1}, "end"]


async def test_all_devices_of_a_user_are_reached_on_every_pod(stack: Stack) -> None:
    devices = [Client(stack.ws_url, token=stack.token("many-devices")) for _ in range(8)]
    await open_all(devices)
    other = await Client(stack.ws_url, token=stack.token("somebody-else")).open()
    try:
        assert len({device.welcome["node"] for device in devices}) > 1
        assert stack.post("/api/send_to_user", {"user": "many-devices", "data": "ding"}).status_code == 200
        for device in devices:
            assert await device.heard("#many-devices", 1) == ["ding"]
        assert stack.post("/api/disconnect", {"user": "many-devices"}).status_code == 200
        assert {await device.closed() for device in devices} == {3503}
        assert (await devices[0].event("goodbye"))["reason"] == "force disconnect"
        assert other.close_code is None
        assert other.events == []
    finally:
        await close_all([*devices, other])


async def test_a_ticket_lets_one_connection_in_on_any_pod(stack: Stack) -> None:
    ticket = stack.post("/api/tickets", {"user": "ann", "rooms": ["chat:*"], "publish": []}).json()["ticket"]
    async with Client(stack.ws_url, path=f"/ws/chat:tickets?ticket={ticket}") as ann:
        assert (await ann.event("ok"))["room"] == "chat:tickets"
    async with Client(stack.ws_url, path=f"/ws?ticket={ticket}") as late:
        assert await late.closed() == 3500
    for name in ("pod-1", "pod-2", "nginx", "access"):
        assert ticket not in stack.log(name)
