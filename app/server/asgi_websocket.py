"""The conversation of one connection with an ASGI application (ASGI WebSocket specification 2.4).

For a session of the gateway it lasts until the hand-over; for any other application, to the end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from app.gateway.connection import Connection, Receiver
from app.server.handshake import Answer, refusal
from app.wire.frames import Frame

Message = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]

log = logging.getLogger("carillon.asgi")

#: Messages that may wait for the application before reading is paused.
QUEUED_MESSAGES = 16


class Upgrade(Connection, Protocol):
    """A connection whose request for a WebSocket is to be answered, once."""

    def accept(self, answer: Answer, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends 101 with these headers beside the answer's own."""

    def refuse(self, response: bytes) -> None:
        """Sends an HTTP response and ends the connection."""


class Disconnected(OSError):
    """Raised from `send` once the client is gone (ASGI: an OSError)."""


class AsgiWebSocket:
    """The connection's receiver until it is handed over."""

    def __init__(self, connection: Upgrade, scope: dict[str, Any], answer: Answer) -> None:
        self._connection = connection
        self._scope = scope
        self._answer = answer
        self._queue: deque[Message] = deque([{"type": "websocket.connect"}])
        self._arrived = asyncio.Event()
        self._arrived.set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._answered = False  # 101 or an HTTP response was sent
        self._closed = False
        self._handed_over = False
        self._refusal: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None

    async def run(self, application: Application) -> None:
        try:
            await application(self._scope, self.receive_event, self.send_event)
        except Disconnected:
            pass
        except BaseException as error:
            log.error("the application failed", exc_info=error)
            self._end(1011)
            if not isinstance(error, Exception):
                raise
        else:
            if not self._handed_over:
                self._end(1000)

    def _end(self, code: int) -> None:
        """The application has returned without ending the connection."""
        if not self._answered:
            self._refuse(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")
        elif not self._closed and not self._handed_over:
            self._closed = True
            self._connection.close(code, "")

    # -- the receiver

    def receive(self, payload: bytes, text: bool) -> None:
        message: Message = {"type": "websocket.receive"}
        if text:
            message["text"] = payload.decode()
        else:
            message["bytes"] = payload
        self._put(message)
        if len(self._queue) >= QUEUED_MESSAGES:
            self._connection.pause_reading()

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def lost(self, code: int) -> None:
        self._closed = True
        self._writable.set()
        self._put({"type": "websocket.disconnect", "code": code, "reason": ""})

    def release(self, receiver: Receiver) -> None:
        """Gives up the connection; what has come already goes to its new receiver."""
        self._handed_over = True
        if not self._writable.is_set():
            receiver.pause_writing()
        self._connection.resume_reading()  # before the receiver may pause it
        for message in self._queue:
            if message["type"] == "websocket.receive":
                text = "text" in message
                receiver.receive(message["text"].encode() if text else message["bytes"], text)
        self._queue.clear()

    # -- the application's side

    async def receive_event(self) -> Message:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._queue[0]
        if message["type"] != "websocket.disconnect":  # that one may be asked for again
            self._queue.popleft()
            self._connection.resume_reading()
        return message

    async def send_event(self, message: Message) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        if self._closed:
            raise Disconnected("the client is gone")
        match message["type"]:
            case "websocket.accept" if not self._answered:
                self._answered = True
                self._connection.accept(self._answer, message.get("subprotocol"), list(message.get("headers") or []))
            case "websocket.send" if self._answered:
                text, data = message.get("text"), message.get("bytes")
                self._connection.send(
                    Frame(data, text=False) if data is not None else Frame((text or "").encode(), text=True)
                )
            case "websocket.close" if self._answered:
                self._closed = True
                self._connection.close(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close" if self._refusal is None:
                self._refuse(403, [], b"")
            case "websocket.http.response.start" if not self._answered and self._refusal is None:
                self._refusal = (message["status"], list(message.get("headers", [])), bytearray())
            case "websocket.http.response.body" if self._refusal is not None and not self._answered:
                status, headers, body = self._refusal
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    self._refuse(status, headers, bytes(body))
            case other:
                raise RuntimeError(f"the message {other!r} does not fit the connection's state")

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._answered = self._closed = True
        self._connection.refuse(refusal(status, headers, body))
        self._put({"type": "websocket.disconnect", "code": 1006, "reason": ""})
