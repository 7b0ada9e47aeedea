"""The application on uvicorn in the test's own process and event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from app.server.state import NodeState
from tests.support.waiting import until


@asynccontextmanager
async def serving(
    app: FastAPI, websockets: object, node: NodeState | None = None, *, send_buffer: int = 0
) -> AsyncIterator[str]:
    """Its URL. `websockets`: this implementation; `node`: as in our worker; `send_buffer`: as its listener sets it."""
    config = uvicorn.Config(app, http="httptools", ws=websockets, log_config=None, lifespan="on")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    server.server_state = node or server.server_state
    listener = socket.socket()
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.bind(("127.0.0.1", 0))
    with server.capture_signals():
        task = asyncio.create_task(server._serve([listener]))
        await until(lambda: server.started, "uvicorn serves")
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task
