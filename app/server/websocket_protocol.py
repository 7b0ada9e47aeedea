"""The worker's WebSocket protocol class: parses frames, and gives the gateway the connection's transport.

A uvicorn `ws=` class. An application that knows the scope extension `carillon.connection` takes the connection over and
returns; every other ASGI application is served through `receive` and `send`.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from app import codes
from app.gateway.connection import Receiver
from app.server.asgi_websocket import AsgiWebSocket
from app.server.handshake import (
    Answer,
    BadHandshake,
    accept_key,
    agree_on_deflate,
    read_head,
    refusal,
    switching_protocols,
)
from app.wire.frames import CLOSE, PING, PONG, TEXT, Frame, close_payload, framed
from app.wire.parser import FrameParser, Violation, read_close

#: How long the peer may take to answer a close frame, and to read what is before it, in seconds.
CLOSE_TIMEOUT = 5.0

#: What is read from a client that has not been answered yet, before reading is paused.
EARLY_BYTES = 65_536

#: The peer went away without a close frame (RFC 6455 section 7.1.5).
ABNORMAL = 1006


class WebSocketProtocol(asyncio.Protocol):
    """One connection, from the end of its request head. Implements gateway.connection.Connection."""

    __slots__ = (
        "_close_code",
        "_close_timer",
        "_config",
        "_early",
        "_parser",
        "_reading_paused",
        "_receiver",
        "_server_state",
        "_state",
        "_transport",
        "address",
        "compressed",
        "raw_write",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._state: dict[str, Any] | None = app_state
        self._transport: asyncio.Transport | None = None
        self._parser: FrameParser | None = None
        self._receiver: Receiver | None = None
        self._reading_paused = False
        #: What came before the handshake was answered.
        self._early = b""
        #: Set when the closing handshake begins: what the receiver is told at the end.
        self._close_code: int | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self.address = ""
        self.raw_write: Callable[[bytes], None] | None = None
        self.compressed = False

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(cast("Any", self))
        settings = getattr(self._server_state, "settings", None)
        if settings is not None:
            self._bound_buffers(settings.send_buffer, settings.write_high_water)

    def _bound_buffers(self, send_buffer: int, high_water: int) -> None:
        """Without these, megabytes go out before a client that does not read is noticed (O1)."""
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=high_water)
        raw = self._transport.get_extra_info("socket")
        if send_buffer and raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Breaks every cycle (H4)."""
        self._server_state.connections.discard(cast("Any", self))
        if self._close_timer is not None:
            self._close_timer.cancel()
        receiver, self._receiver = self._receiver, None
        self._transport = self.raw_write = self._parser = self._close_timer = None
        if receiver is not None:
            receiver.lost(ABNORMAL if self._close_code is None else self._close_code)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._frames(data)
        elif self._receiver is None:
            self._handshake(data)
        else:
            self._early_data(data)

    def _early_data(self, data: bytes) -> None:
        """The client speaks before it was answered: that is kept until it is, up to a bound (RFC 6455 section 4.1)."""
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self.pause_reading()

    # -- the handshake

    def _handshake(self, data: bytes) -> None:
        """The first data is the request head, as uvicorn's HTTP protocol hands it over."""
        head = read_head(data)
        try:
            answer = Answer(accept_key(head), agree_on_deflate(head) if self._may_deflate() else b"")
        except BadHandshake as bad:
            text = [(b"content-type", b"text/plain; charset=utf-8"), *bad.headers]
            self.refuse(refusal(bad.status, text, bad.reason.encode()))
            return
        assert self._transport is not None
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self._transport.get_extra_info("sslcontext") else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": self._config.root_path,
            "path": self._config.root_path + head.path,
            "raw_path": self._config.root_path.encode() + head.raw_path.encode("latin-1"),
            "query_string": head.query.encode("latin-1"),
            "headers": head.headers,
            "subprotocols": head.subprotocols,
            "state": dict(self._state or {}),
            "extensions": {"websocket.http.response": {}, "carillon.connection": {"connection": self}},
        }
        self._state = None
        conversation = AsgiWebSocket(self, scope, answer)
        self._receiver = conversation
        task = asyncio.get_running_loop().create_task(conversation.run(self._config.loaded_app))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def accept(self, answer: Answer, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        """Answers 101: from now on frames are read."""
        if self._transport is not None:
            self._transport.write(switching_protocols(answer, subprotocol, headers))
            self.compressed = bool(answer.extensions)
            self._parser = FrameParser(self._max_message_bytes(), deflate=self.compressed)
            self.raw_write = self._transport.write
            early, self._early = self._early, b""
            if early:
                self._frames(early)
                self.resume_reading()

    def _max_message_bytes(self) -> int:
        settings = getattr(self._server_state, "settings", None)
        return cast("int", self._config.ws_max_size if settings is None else settings.max_message_bytes)

    def _may_deflate(self) -> bool:
        settings = getattr(self._server_state, "settings", None)
        return bool(self._config.ws_per_message_deflate if settings is None else settings.compression_min_bytes)

    def refuse(self, response: bytes) -> None:
        """Answers with an HTTP response and ends the connection."""
        if self._transport is not None:
            self._transport.write(response)
            self._transport.close()
            self._abort_later()

    def hand_over(self, receiver: Receiver) -> None:
        """From now on `receiver` gets what comes; the application's task may end without ending the connection.

        Where the connection is gone already, `receiver` is told at once."""
        previous, self._receiver = self._receiver, receiver
        if isinstance(previous, AsgiWebSocket):
            previous.release(receiver)
        if self._transport is None:
            self._receiver = None
            receiver.lost(ABNORMAL)

    # -- what comes in

    def _frames(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            for opcode, payload in parser.feed(data):
                if opcode <= 2:
                    if self._receiver is not None and self._close_code is None:
                        self._receiver.receive(payload, opcode == TEXT)
                elif opcode == CLOSE:
                    self._peer_closes(payload)
                    return
                elif opcode == PING:
                    self._answer_ping(payload)
                if self._parser is None:  # the receiver ended the connection at once
                    return
                if self._reading_paused:  # what is left stays as it came: inflated it may be a thousand times larger
                    return
        except Violation as violation:
            self._close(violation.close.code, violation.reason)
            self._parser = FrameParser(0)  # nothing that follows is read as a message
            if self._transport is not None:
                self._transport.close()

    def _answer_ping(self, payload: bytes) -> None:
        """A client that does not read gets no pongs: they would pile up."""
        if self._close_code is None and self._transport is not None and not self._transport.get_write_buffer_size():
            self._transport.write(framed(PONG, payload))

    def _peer_closes(self, payload: bytes) -> None:
        code, reason = read_close(payload)
        if self._close_code is None:
            self._close(1000 if code == 1005 else code, reason, told=code)
        if self._transport is not None:
            self._transport.close()

    # -- what goes out (gateway.connection.Connection)

    def send(self, frame: Frame) -> None:
        if self._transport is not None and self._close_code is None:
            self._transport.write(frame.deflated if self.compressed else frame.wire)

    def close(self, code: int, reason: str) -> None:
        if self._transport is not None and self._close_code is None:
            self._close(code, reason)

    def _close(self, code: int, reason: str, told: int | None = None) -> None:
        """Sends a close frame, after what is before it, and waits for the peer's a bounded time."""
        if self._close_code is not None:
            return
        self._close_code = code if told is None else told
        if self._transport is not None:
            self._transport.write(framed(CLOSE, close_payload(code, reason)))
            self.resume_reading()  # the peer's close frame has to be read
            self._abort_later()

    def _abort_later(self) -> None:
        if self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        """Takes up what had come when reading was paused."""
        if self._parser is not None and not self._reading_paused:
            self._frames(b"")

    def shutdown(self) -> None:
        """Uvicorn's last call, when the drain is over."""
        self.close(codes.SHUTDOWN.code, codes.SHUTDOWN.reason)
        if self._transport is not None:
            self._transport.close()
