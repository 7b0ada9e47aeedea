"""FastAPI dependencies of hooks: resolved once, at the handshake."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, WebSocket
from fastapi.requests import HTTPConnection
from starlette.testclient import TestClient as StarletteClient
from starlette.testclient import WebSocketDenialResponse

from app import codes
from app.auth.tokens import sign
from app.codes import CommandError
from app.gateway.client import Client
from app.testing import TestGateway, UpgradeRefused
from tests.support.waiting import until


def hooking(**named: Any) -> object:
    """Hooks as a module would define them."""
    return SimpleNamespace(**named)


def agent(connection: HTTPConnection) -> str:
    return connection.headers.get("user-agent", "none")


Agent = Annotated[str, Depends(agent)]


async def test_dependencies_are_resolved_once_for_all_hooks() -> None:
    resolved: list[str] = []

    async def counted(agent: Agent, websocket: WebSocket) -> str:
        resolved.append(websocket.url.path)
        return agent

    Counted = Annotated[str, Depends(counted)]

    async def on_connect(client: Client, found: Counted) -> None:
        client.state["agent"] = found

    async def on_rpc(client: Client, method: str, data: Any, found: Counted, limit: int = 7) -> Any:
        return [client.state["agent"], found, limit]

    async with TestGateway(hooking(on_connect=on_connect, on_rpc=on_rpc)) as node:
        ann = await node.connect(headers={"User-Agent": "bell/1"})
        bob = await node.connect(headers={"User-Agent": "bell/2"})
        for _ in range(2):
            assert await ann.rpc("x") == ["bell/1", "bell/1", 7]
            assert await bob.rpc("x") == ["bell/2", "bell/2", 7]
    assert resolved == ["/ws", "/ws"]


async def test_dependencies_of_on_disconnect_are_there_at_the_end() -> None:
    left: list[str] = []

    async def on_disconnect(client: Client, code: int, found: Agent) -> None:
        left.append(found)

    async with TestGateway(hooking(on_disconnect=on_disconnect)) as node:
        await node.connect(headers={"User-Agent": "bell/1"})
    assert left == ["bell/1"]


async def test_a_dependency_with_yield_ends_before_the_client_is_let_in() -> None:
    life: list[str] = []

    async def opened() -> AsyncIterator[str]:
        life.append("begin")
        yield "value"
        life.append("end")

    async def on_connect(client: Client, value: Annotated[str, Depends(opened)]) -> None:
        life.append(value)

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        await node.connect()
    assert life == ["begin", "end", "value"]


async def test_dependencies_can_be_overridden_in_tests() -> None:
    async def on_rpc(client: Client, method: str, data: Any, found: Agent) -> Any:
        return found

    node = TestGateway(hooking(on_rpc=on_rpc))
    node.app.dependency_overrides[agent] = lambda: "overridden"
    async with node:
        assert await (await node.connect()).rpc("x") == "overridden"


def depending_on(dependency: Any) -> object:
    async def on_connect(client: Client, found: Annotated[Any, Depends(dependency)]) -> None: ...

    return hooking(on_connect=on_connect)


async def test_a_dependency_refuses_the_upgrade_with_its_status() -> None:
    async def paid() -> None:
        raise HTTPException(402, "pay first", headers={"X-Price": "1"})

    async with TestGateway(depending_on(paid)) as node:
        with pytest.raises(UpgradeRefused, match=r'402 .*"reason":"pay first"') as refused:
            await node.open()
        assert refused.value.headers["x-price"] == "1"
        assert len(node.gateway.registry) == 0
        assert node.gateway.counters.upgrades_refused == {"hook": 1}


async def test_a_dependency_refuses_with_an_error_of_the_catalogue() -> None:
    async def moderated() -> None:
        raise CommandError(codes.PERMISSION_DENIED, "not on Sundays")

    async with TestGateway(depending_on(moderated)) as node:
        with pytest.raises(UpgradeRefused, match=r'403 .*"reason":"not on Sundays"'):
            await node.open()


async def test_a_dependency_that_fails_refuses_the_upgrade() -> None:
    async def broken() -> None:
        raise KeyError("details")

    async with TestGateway(depending_on(broken)) as node:
        with pytest.raises(UpgradeRefused, match=r"500 .*hook_failed"):
            await node.open()


async def test_a_dependency_that_hangs_refuses_the_upgrade() -> None:
    async def hanging() -> None:
        await asyncio.get_running_loop().create_future()

    async with TestGateway(depending_on(hanging), hook_timeout=0.05) as node:
        with pytest.raises(UpgradeRefused, match="500"):
            await node.open()


async def test_a_dependency_that_misses_its_header_refuses_the_upgrade() -> None:
    async def tenant(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    async with TestGateway(depending_on(tenant)) as node:
        with pytest.raises(UpgradeRefused, match="403"):
            await node.open()
        await node.connect(headers={"X-Tenant": "t"})


async def test_who_is_not_taken_in_costs_no_dependency() -> None:
    resolved: list[int] = []

    async def counted() -> None:
        resolved.append(1)

    async with TestGateway(depending_on(counted)) as node:
        await node.gateway.drain(0)
        with pytest.raises(UpgradeRefused, match="503"):
            await node.open()
    assert resolved == []


async def test_who_waits_for_a_dependency_does_not_slip_past_a_limit() -> None:
    """All of them were let through while none was counted yet."""
    waiting: list[int] = []
    go_on = asyncio.Event()

    async def slow() -> None:
        waiting.append(1)
        await go_on.wait()

    async with TestGateway(depending_on(slow), max_connections=2) as node:
        opening = [asyncio.create_task(node.open()) for _ in range(4)]
        await until(lambda: len(waiting) == 4, "all wait")
        go_on.set()
        opened = await asyncio.gather(*opening, return_exceptions=True)
        assert [type(one) for one in opened].count(UpgradeRefused) == 2
        assert len(node.gateway.registry) == 2
        assert node.gateway.counters.upgrades_refused == {"max_connections": 2}


def test_on_any_asgi_server_dependencies_work_the_same() -> None:
    """Through the portable connection (invariant 10)."""
    life: list[str] = []

    async def guarded(agent: Agent) -> AsyncIterator[str]:
        if agent == "bad":
            raise HTTPException(402, "pay first")
        yield agent
        life.append("end")

    async def on_rpc(client: Client, method: str, data: Any, found: Annotated[str, Depends(guarded)]) -> Any:
        return [found, *life]

    node = TestGateway(hooking(on_rpc=on_rpc))
    bearer = {"Authorization": f"Bearer {sign(node.settings, 'ann')}"}
    with StarletteClient(node.app) as client:
        with client.websocket_connect("/ws", headers={"User-Agent": "bell/3", **bearer}) as websocket:
            websocket.receive_json()
            websocket.send_json({"type": "rpc", "id": 1, "method": "x"})
            assert websocket.receive_json() == {"type": "ok", "id": 1, "data": ["bell/3", "end"]}
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/ws", headers={"User-Agent": "bad"}),
        ):
            pass
        assert (denied.value.status_code, denied.value.json()["error"]["reason"]) == (402, "pay first")
