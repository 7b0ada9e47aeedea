"""A message has `message_timeout` to become whole, and what we do not read costs nobody anything (H2)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.config import Config

from app.server.asgi_websocket import QUEUED_MESSAGES, AsgiWebSocket
from app.server.http_protocol import HttpProtocol
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.settings import Settings
from app.wire.frames import TEXT
from tests.support.raw_websocket import client_frame
from tests.support.waiting import until

TIMEOUT = 0.2  # seconds

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


class LateReader:
    """An application that accepts, and reads nothing before it is told to."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.read: list[str] = []

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.may_read.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.read.append(message["text"])


async def test_only_what_we_would_read_can_be_late() -> None:
    state, app = NodeState(Settings(message_timeout=TIMEOUT)), LateReader()
    config = Config(app, ws=WebSocketProtocol, log_config=None, access_log=False, interface="asgi3")
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    whole = b"".join(client_frame(TEXT, b"%d" % number) for number in range(100))
    writer.write(whole + client_frame(TEXT, b"half")[:5])

    [connection] = state.connections
    assert isinstance(connection, WebSocketProtocol)
    conversation = connection._receiver
    assert isinstance(conversation, AsgiWebSocket)
    await until(lambda: connection._reading_paused, "enough waits")
    sent_at = loop.time()
    await until(lambda: loop.time() > sent_at + 3 * TIMEOUT, "a message would have been late")
    assert len(conversation._queue) == QUEUED_MESSAGES, "what came in one read with it is not taken either"
    assert state.counters.limit_hits == {}

    app.may_read.set()
    await until(lambda: len(app.read) == 100, "all is read")
    assert app.read == [str(number) for number in range(100)]
    assert (await reader.read()).startswith(b"\x88"), "now the half one is late: a close frame"
    assert state.counters.limit_hits == {"message_timeout": 1}
    assert connection._close_code == 1008
    writer.close()
    server.close()
    await until(lambda: not state.connections, "nothing is left")
    await asyncio.gather(*state.tasks)
