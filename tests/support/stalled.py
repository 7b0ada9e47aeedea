"""A client that subscribes and then never reads again."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

RECEIVE_BUFFER = 4096  # bytes: what a phone in a tunnel takes


class StalledClient:
    """`async with StalledClient("127.0.0.1", port, token, room)`: from then on its socket fills."""

    def __init__(self, host: str, port: int, token: str, room: str) -> None:
        self._address = (host, port)
        self._messages = [
            {"type": "auth", "id": 1, "token": token},
            {"type": "subscribe", "id": 2, "room": room},
        ]

    async def __aenter__(self) -> Self:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        raw.connect(self._address)
        raw.setblocking(False)
        host, port = self._address
        self._socket: ClientConnection = await connect(
            f"ws://{host}:{port}/ws", sock=raw, proxy=None, max_queue=1, ping_interval=None, compression=None
        )
        await self._socket.recv()
        for message in self._messages:
            await self._socket.send(json.dumps(message))
            reply = json.loads(await self._socket.recv())
            assert reply["type"] == "ok", reply
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.transport.abort()

    async def read_all(self) -> list[dict[str, Any]]:
        """Wakes up, and reads what comes until the server closes or says `end`."""
        events: list[dict[str, Any]] = []
        with suppress(ConnectionClosed):
            async for frame in self._socket:
                events.append(json.loads(frame))
                if events[-1].get("data") == "end":
                    break
        return events

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code


def unsent_bytes(port: int) -> int:
    """The fullest send queue that the kernel keeps for a socket bound to this local port (Linux)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return max((int(row[4].split(":")[0], 16) for row in rows if int(row[1].split(":")[1], 16) == port), default=0)
