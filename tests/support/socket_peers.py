"""A node's sessions on real sockets, in process: the worker's protocol class at one end, the test at the other."""

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any, Self

import uvicorn

from app.auth.permissions import Claims
from app.gateway.session import Session
from app.server.handshake import Answer
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.wire.frames import CLOSE
from app.wire.plain import JSON
from tests.support.in_process import Node
from tests.support.raw_websocket import client_frame, frames_in
from tests.support.waiting import until

CONFIG = uvicorn.Config("none:none", log_config=None)


def tcp_pair(*, send_buffer: int = 0, receive_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """The server's and the client's end of a connection over loopback; buffers in bytes, 0: the kernel's choice."""
    with socket.socket() as listener, socket.socket() as client:
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        server.setblocking(False)
        client.setblocking(False)
        return server, client.dup()


class SocketPeer:
    """`async with Node() as node: ann = await SocketPeer(node).join("chat:x")`. Reads only when it is told to."""

    def __init__(self, node: Node, **buffers: int) -> None:
        self._node = node
        self._server, self.socket = tcp_pair(**buffers)
        self.connection = WebSocketProtocol(CONFIG, NodeState(node.settings), {})
        self._received = bytearray()
        self._head_size = 0

    async def open(self, user: str = "ann") -> Self:
        """Upgraded, and let in as `user`."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.connection, self._server)
        self.connection.accept(Answer(b"not checked here"), None, [])
        self.session = Session(self._node.gateway, self.connection, JSON, None)
        self._node.gateway.add(self.session, None)
        self.connection.hand_over(self.session)
        await self._node.gateway.admit(self.session, Claims(user, None, ("*",), ("*",)))
        return self

    async def join(self, *rooms: str, user: str = "ann") -> Self:
        await self.open(user)
        for room in rooms:
            self.send({"type": "subscribe", "id": room, "room": room})
            await self.until_told("ok")
            await until(lambda room=room: room in self.session.rooms, f"a member of {room}")
        return self

    def send(self, message: dict[str, Any]) -> None:
        """As a client's masked frame."""
        self.socket.send(client_frame(1, json.dumps(message).encode()))

    def read(self) -> bytes:
        """Takes what the kernel holds, without letting the loop run; everything so far, after the 101 response."""
        with suppress(BlockingIOError, ConnectionResetError):
            while data := self.socket.recv(1_000_000):
                self._received += data
        if not self._head_size:
            self._head_size = self._received.find(b"\r\n\r\n") + 4
        return bytes(self._received[self._head_size :])

    @property
    def events(self) -> list[dict[str, Any]]:
        """Reads: every whole frame so far, decoded. A damaged stream is an error here."""
        return [json.loads(payload) for opcode, payload in frames_in(self.read()) if opcode != CLOSE]

    def data(self, room: str) -> list[Any]:
        return [event["data"] for event in self.events if event["type"] == "message" and event["room"] == room]

    def told(self, type: str) -> bool:
        return any(event["type"] == type for event in self.events)

    async def until_told(self, type: str) -> None:
        await until(lambda: self.told(type), f"an event {type}")

    def close(self) -> None:
        self.connection.abort()
        self.socket.close()
