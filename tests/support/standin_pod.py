"""A tiny server in the place of a pod, for tests of what stands around pods: it says what it was sent.

`GET /standin/<status>` on the internal port sets what upgrades are answered with (101: accepted). SIGTERM: each
WebSocket gets the text `goodbye` and a close frame."""

import asyncio
import json
import os
import signal
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

HOST = os.environ["CARILLON_BIND_HOST"]
PUBLIC_PORT = int(os.environ["CARILLON_PUBLIC_PORT"])
INTERNAL_PORT = int(os.environ["CARILLON_INTERNAL_PORT"])


class Pod:
    """What all connections of this process share."""

    def __init__(self) -> None:
        self.upgrade_status = 101

    def public(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade") and self.upgrade_status == 101:
            return None
        if request.headers.get("Upgrade"):
            return self._answer(request, self.upgrade_status)
        return self._answer(request, 200)

    def internal(self, connection: ServerConnection, request: Request) -> Response:
        if request.path.startswith("/standin/"):
            self.upgrade_status = int(request.path.rpartition("/")[2])
        return self._answer(request, 200)

    def _answer(self, request: Request, status: int) -> Response:
        """Tells which pod this is and what the request looked like here."""
        told: dict[str, Any] = {"pod": PUBLIC_PORT, "pid": os.getpid(), "path": request.path}
        told["headers"] = [[name.lower(), value] for name, value in request.headers.raw_items()]
        body = json.dumps(told).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        headers["Connection"] = "close"
        return Response(status, HTTPStatus(status).phrase, headers, body)


async def talk(connection: ServerConnection) -> None:
    """Echoes; the first message tells who serves."""
    await connection.send(json.dumps({"pod": PUBLIC_PORT, "pid": os.getpid()}))
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


async def main() -> None:
    pod = Pod()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    public: Server = await serve(talk, HOST, PUBLIC_PORT, process_request=pod.public)
    async with serve(talk, HOST, INTERNAL_PORT, process_request=pod.internal):
        await ending.wait()
        for connection in public.connections:
            await connection.send("goodbye")
        public.close()
        await public.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
