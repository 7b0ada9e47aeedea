"""Our HTTP and WebSocket protocols alone on a listener of this process, with a small ASGI application behind them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.config import Config

from app.server.arrival import Arrival
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.settings import Settings

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Accepts WebSockets until they end, but for `/undecided`.

    Over HTTP it answers `/slow` when the body is complete; says how many fields came."""
    if scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/undecided":
            await receive()
            return
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["path"] == "/slow":
        while (await receive()).get("more_body"):
            pass
    body = json.dumps(len(scope["headers"])).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Served:
    """A listener of our protocol alone."""

    def __init__(self, state: NodeState, port: int) -> None:
        self.state = state
        self.port = port

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def answer(self, data: bytes) -> bytes:
        """Until the server closes."""
        reader, writer = await self.connect(data)
        try:
            async with asyncio.timeout(3):
                return await reader.read()
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(3):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def sweep_after(self, seconds: float) -> None:
        self.state.sweep(asyncio.get_running_loop().time() + seconds)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Served]:
    state = NodeState(Settings(**settings))
    config = Config(app, ws=WebSocketProtocol, log_config=None, access_log=False, interface="asgi3")
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Arrival(config, state, {}), "127.0.0.1", 0)
    try:
        yield Served(state, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(state.connections):
            connection.abort()  # type: ignore[union-attr]
        for task in list(state.tasks):
            task.cancel()
