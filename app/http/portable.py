"""A connection on any ASGI server or test client: whole messages through `websocket.send` (invariant 10)."""

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.gateway.connection import NO_SOCKET, Receiver
from app.wire.frames import Frame

#: Unsent bytes above which a client counts as slow (O1): the server beneath takes whole messages, one at a time.
HIGH_WATER = 16_384

#: How long a client may take to accept what was sent before a close, in seconds.
CLOSE_TIMEOUT = 5.0


class PortableConnection:
    """Implements gateway.connection.Connection with one task that writes and one that reads."""

    raw_write: Callable[[bytes], None] | None = None
    socket = NO_SOCKET
    compressed = False  # the server beneath may do it, with its own frames

    def __init__(self, websocket: WebSocket, address: str) -> None:
        self.address = address
        self._websocket = websocket
        self._queue: deque[Frame] = deque()
        self._queued = 0
        self._paused = False
        self._changed = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._close: tuple[int, str] | None = None
        self._receiver: Receiver | None = None

    async def serve(self, receiver: Receiver) -> None:
        """Carries messages both ways until the connection ends; tells the receiver at the end."""
        self._receiver = receiver
        reader = asyncio.create_task(self._read(receiver))
        writer = asyncio.create_task(self._write())
        code = 1006
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and not reader.cancelled() and reader.exception() is None:
                code = reader.result()
        finally:
            reader.cancel()
            writer.cancel()
            # Not gather(): it loses the message by which anyio, under a test client, knows its own cancellation.
            await asyncio.wait((reader, writer))
            receiver.lost(self._close[0] if self._close is not None else code)

    async def _read(self, receiver: Receiver) -> int:
        """Returns the peer's close code."""
        while True:
            await self._reading.wait()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            text = message.get("text")
            if text is not None:
                receiver.receive(text.encode(errors="surrogatepass"), True)
            else:
                receiver.receive(message["bytes"], False)

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._send(self._queue.popleft())
                if self._close is not None:
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._websocket.close(*self._close)
                    return
                self._changed.clear()
                await self._changed.wait()
        except (WebSocketDisconnect, OSError, RuntimeError, TimeoutError):
            return  # the client is gone; the end of this task ends the connection

    async def _send(self, frame: Frame) -> None:
        if frame.text:
            await self._websocket.send_text(frame.payload.decode())
        else:
            await self._websocket.send_bytes(frame.payload)
        self._queued -= len(frame.payload)
        if self._paused and not self._queued:
            self._paused = False
            assert self._receiver is not None
            self._receiver.resume_writing()

    def send(self, frame: Frame) -> None:
        if self._close is not None:
            return
        self._queue.append(frame)
        self._queued += len(frame.payload)
        self._changed.set()
        if self._queued > HIGH_WATER and not self._paused:
            self._paused = True
            if self._receiver is not None:
                self._receiver.pause_writing()

    def close(self, code: int, reason: str) -> None:
        if self._close is None:
            self._close = (code, reason)
            self._changed.set()

    def abort(self) -> None:
        self._queue.clear()
        self.close(1006, "")

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()
