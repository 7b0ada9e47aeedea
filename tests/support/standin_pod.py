"""A tiny server in the place of a pod, for tests of what stands around pods: it says what it was sent.

`POST /standin/503` on the internal port sets what public requests are answered with; 200 accepts upgrades."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HOST = os.environ["CARILLON_BIND_HOST"]
PUBLIC_PORT = int(os.environ["CARILLON_PUBLIC_PORT"])
INTERNAL_PORT = int(os.environ["CARILLON_INTERNAL_PORT"])


class Pod:
    """What all connections of this process share."""

    def __init__(self) -> None:
        self.status = 200
        self.requests = 0

    def told(self, scope: Message) -> bytes:
        """Which pod this is and what the request looked like here."""
        headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
        return json.dumps(
            {
                "pod": PUBLIC_PORT,
                "path": scope["path"],
                "headers": headers,
                "client": scope["client"],
                "requests": self.requests,
            }
        ).encode()

    async def public(self, scope: Message, receive: Receive, send: Send) -> None:
        self.requests += 1
        if scope["type"] == "websocket" and self.status == 200:
            await self._echo(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._answer(scope, send, "websocket.http.response")
        elif scope["path"] == "/sse":
            await self._stream(receive, send)
        else:
            await self._answer(scope, send, "http.response")

    async def internal(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/standin/"):
            self.status = int(scope["path"].rpartition("/")[2])
        await self._answer(scope, send, "http.response", status=200)

    async def _echo(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": self.told(scope).decode()})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text")})

    async def _stream(self, receive: Receive, send: Send) -> None:
        """One event, and then nothing until the client leaves."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, scope: Message, send: Send, kind: str, *, status: int | None = None) -> None:
        body = self.told(scope)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": f"{kind}.start", "status": status or self.status, "headers": headers})
        await send({"type": f"{kind}.body", "body": body})


def config(app: Callable[..., Awaitable[None]], port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=HOST,
        port=port,
        interface="asgi3",
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=2**20,
        proxy_headers=False,
        log_level="warning",
    )


async def main() -> None:
    pod = Pod()
    servers = [uvicorn.Server(config(pod.public, PUBLIC_PORT)), uvicorn.Server(config(pod.internal, INTERNAL_PORT))]
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
