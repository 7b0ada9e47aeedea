"""The end of a server: what waits in its listener, and how long it all may take."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.lifespan.off import LifespanOff

from app.server.pod import own_slot
from app.server.server import AFTER_DRAIN, Server
from app.server.state import NodeState
from app.settings import Settings

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CLIENTS = 50


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """One whose listener nobody accepts from, as in the moment before it closes."""
    http = "app.server.http_protocol:HttpProtocol"
    config = Config(app, http=http, ws="none", log_config=None, interface="asgi3", lifespan="off")
    config.load()
    server = Server(config, NodeState(Settings()), own_slot(), notify=lambda: None, master=os.getppid())
    server.lifespan = LifespanOff(config)
    server.servers = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    listener.setblocking(False)
    server._listeners = [listener]
    yield server
    listener.close()


async def connected(server: Server) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Clients that wait in the listener's queue, their requests sent."""
    clients = [await asyncio.open_connection(*server._listeners[0].getsockname()) for _ in range(CLIENTS)]
    for _, writer in clients:
        writer.write(GET)
    return clients


async def test_what_waits_in_a_closing_listener_is_answered(server: Server) -> None:
    """N3: without that the kernel resets them all."""
    clients = await connected(server)
    async with asyncio.timeout(5):
        await server.shutdown()
        answers = [await reader.read() for reader, _ in clients]
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer for answer in answers)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", clients[0][1].get_extra_info("peername")[1])


async def test_a_quick_end_does_not_wait_for_them(server: Server) -> None:
    clients = await connected(server)
    server.force_exit = True
    async with asyncio.timeout(1):
        await server.shutdown()
        for reader, _ in clients:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""


def test_the_end_fits_into_what_gunicorn_grants() -> None:
    """N5: five seconds after the drain."""
    assert AFTER_DRAIN < 5
