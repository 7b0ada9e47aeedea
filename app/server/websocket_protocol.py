"""The worker's WebSocket protocol class: parses frames, and gives the gateway the connection's transport.

A uvicorn `ws=` class. An application that knows the scope extension `carillon.connection` takes the connection over and
returns; every other ASGI application is served through `receive` and `send`.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from app import codes
from app.gateway.connection import NO_SOCKET, Receiver
from app.server.asgi_websocket import AsgiWebSocket
from app.server.handshake import (
    Answer,
    BadHandshake,
    Head,
    accept_key,
    agree_on_deflate,
    read_head,
    refusal,
    switching_protocols,
)
from app.server.state import NodeState
from app.wire.frames import CLOSE, PING, PONG, TEXT, Frame, close_payload, framed
from app.wire.parser import FrameParser, Violation, read_close

#: How long the peer may take to answer a close frame, and to read what is before it, in seconds.
CLOSE_TIMEOUT = 5.0

#: After a violation, how long nothing may have come before the connection is cut, in seconds. Closing on bytes that
#: nobody has read resets a connection, and what is still in the midst of sending never sees our close frame.
LINGER = 0.25

#: The longest that this may go on, with a peer that never stops, in seconds.
LINGER_MAX = 2.0

#: What is read from a client that has not been answered yet, before reading is paused.
EARLY_BYTES = 65_536

#: What SO_LINGER is set to: on, for no time (socket(7)).
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Address = tuple[str, int | None]

#: The peer went away without a close frame (RFC 6455 section 7.1.5).
ABNORMAL = 1006


class WebSocketProtocol(asyncio.Protocol):
    """One connection, from the end of its request head. Implements gateway.connection.Connection."""

    __slots__ = (
        "_aside_rate",
        "_close_code",
        "_close_timer",
        "_config",
        "_early",
        "_parser",
        "_reading_paused",
        "_receiver",
        "_server_state",
        "_socket",
        "_state",
        "_transport",
        "_unsent_head",
        "_watch",
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
        #: State of the rate of frames that no session counts.
        self._aside_rate = 0.0
        #: What came before the handshake was answered.
        self._early = b""
        #: Set when the closing handshake begins: what the receiver is told at the end.
        self._close_code: int | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        #: Runs only while something is half done: a message that has begun, or the lull after a violation.
        self._watch: asyncio.TimerHandle | None = None
        #: The 101 response, until it goes out with the first frame, or alone in the loop's next turn.
        self._unsent_head = b""
        self._socket: int | None = None
        self.address = ""
        self.raw_write: Callable[[bytes], None] | None = None
        self.compressed = False

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server_state.connections.add(cast("Any", self))
        # What the socket does not take at once is the outbox's: bytes handed to a transport cannot be dropped (O1). And
        # a connection that has not paused us is known to hold nothing back, so that its socket may be written to.
        self._transport.set_write_buffer_limits(high=0)

    @property
    def _node(self) -> NodeState | None:
        """What our own server shares; None on another one, where the bounds that it sets do not exist."""
        return self._server_state if isinstance(self._server_state, NodeState) else None

    @property
    def socket(self) -> int:
        """Looked up when the first fan-out needs it: asyncio makes an object for that."""
        if self._socket is None and self._transport is not None:
            plain = None if self._transport.get_extra_info("sslcontext") else self._transport.get_extra_info("socket")
            self._socket = NO_SOCKET if plain is None else plain.fileno()
        return NO_SOCKET if self._socket is None else self._socket

    def connection_lost(self, exc: Exception | None) -> None:
        """Breaks every cycle (H4)."""
        self._server_state.connections.discard(cast("Any", self))
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._stop_watch()
        self._transport = self.raw_write = self._parser = self._close_timer = None
        self._over()

    def _over(self) -> None:
        """Tells the receiver that nothing more will come and nothing can be sent."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(ABNORMAL if self._close_code is None else self._close_code)

    def eof_received(self) -> None:
        """The transport closes itself, when what is unsent has gone out: that has an end too."""
        self._abort_later()

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._frames(data)
        elif self._close_code is not None:
            self._linger()
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
        """The first data is the request head, as uvicorn's own HTTP protocols hand it over."""
        assert self._transport is not None
        self.upgrade(read_head(data), get_local_addr(self._transport), get_remote_addr(self._transport))

    def upgrade(self, head: Head, local: Address | None, remote: Address | None) -> None:
        """Checks the request and asks the application."""
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
            "server": local,
            "client": remote,
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
            self._unsent_head = switching_protocols(answer, subprotocol, headers)
            asyncio.get_running_loop().call_soon(self._write, b"")
            self.compressed = bool(answer.extensions)
            self._parser = FrameParser(self._max_message_bytes(), deflate=self.compressed)
            self.raw_write = self._transport.write  # for a session, which has said `welcome` before (A4)
            early, self._early = self._early, b""
            if early:
                self.resume_reading()
                self._frames(early)

    def _max_message_bytes(self) -> int:
        return self._config.ws_max_size if self._node is None else self._node.settings.max_message_bytes

    def _may_deflate(self) -> bool:
        if self._node is None:
            return self._config.ws_per_message_deflate
        return self._node.settings.compression_min_bytes > 0

    def refuse(self, response: bytes) -> None:
        """Answers with an HTTP response and ends the connection."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(response)
            self._transport.close()
            self._abort_later()

    def hand_over(self, receiver: Receiver) -> None:
        """From now on `receiver` gets what comes; the application's task may end without ending the connection.

        Where the connection is gone already, `receiver` is told at once."""
        previous, self._receiver = self._receiver, receiver
        if isinstance(previous, AsgiWebSocket):
            previous.release(receiver)
        if self._transport is None or self._close_code is not None:
            self._over()

    # -- what comes in

    def _frames(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        whole = False
        try:
            for opcode, payload in parser.feed(data):
                if opcode > 2:
                    self._control(opcode, payload)
                elif self._close_code is not None:  # it was under way when we closed
                    self._count_aside()
                elif self._receiver is not None:
                    whole = True
                    self._receiver.receive(payload, opcode == TEXT)
                if self._parser is None or self._reading_paused:  # the parser keeps the rest
                    break
        except Violation as violation:
            self._fail(violation)
        else:
            if self._watch is not None or parser.unfinished:
                self._watch_message(parser, anew=whole)

    def _read_on(self) -> None:
        """What had come before reading was paused."""
        if self._parser is not None and not self._reading_paused:
            self._frames(b"")

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._peer_closes(payload)
            return
        self._count_aside()
        if opcode == PING:
            self._answer_ping(payload)

    def _count_aside(self) -> None:
        """Frames that no session counts have the figures of messages, and a bucket of their own. Raises Violation."""
        node = self._node
        if node is None:
            return
        rate = node.aside_rate.next_state(self._aside_rate, asyncio.get_running_loop().time())
        if rate is None:
            node.counters.limit_hits["message_rate"] += 1
            raise Violation(codes.TOO_MANY_MESSAGES, codes.TOO_MANY_MESSAGES.reason)
        self._aside_rate = rate

    def _watch_message(self, parser: FrameParser, *, anew: bool) -> None:
        """A message that has begun has `message_timeout` to become whole; with `anew` it has only now begun."""
        if anew or not parser.unfinished:
            self._stop_watch()
        if self._watch is None and parser.unfinished and self._close_code is None and self._node is not None:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._node.settings.message_timeout, self._message_due)

    def _message_due(self) -> None:
        node, self._watch = self._node, None
        if self._parser is None or node is None:
            return
        if self._reading_paused:  # it is we who keep the client waiting
            self._watch_message(self._parser, anew=True)
            return
        node.counters.limit_hits["message_timeout"] += 1
        self._fail(Violation(codes.POLICY_VIOLATION, f"a message took longer than {node.settings.message_timeout:g} s"))

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _fail(self, violation: Violation) -> None:
        """Ends the connection with the violation's code. What still comes is not looked at (RFC 6455 section 7.1.7)."""
        self._close(violation.close.code, violation.reason, over=True)
        self._parser = None
        self._abort_later(LINGER_MAX)
        self._linger()

    def _linger(self) -> None:
        self._stop_watch()
        self._watch = asyncio.get_running_loop().call_later(LINGER, self._hang_up)

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _answer_ping(self, payload: bytes) -> None:
        """A client that does not read gets no pongs: they would pile up."""
        if self._close_code is None and self._transport is not None and not self._transport.get_write_buffer_size():
            self._write(framed(PONG, payload))

    def _peer_closes(self, payload: bytes) -> None:
        code, reason = read_close(payload)
        self._close(1000 if code == 1005 else code, reason, told=code, over=True)
        self._parser = None
        self._hang_up()

    # -- what goes out (gateway.connection.Connection)

    def send(self, frame: Frame) -> None:
        if self._transport is not None and self._close_code is None:
            self._write(frame.deflated if self.compressed else frame.wire)

    def _write(self, data: bytes) -> None:
        """One system call for the 101 response and the first frame."""
        if self._transport is not None and (data or self._unsent_head):
            head, self._unsent_head = self._unsent_head, b""
            self._transport.write(head + data)

    def close(self, code: int, reason: str) -> None:
        self._close(code, reason)

    def _close(self, code: int, reason: str, told: int | None = None, *, over: bool = False) -> None:
        """Sends a close frame, after what is before it, and waits for the peer's a bounded time.

        `over`: the receiver is told first (`told`, if it is another code), so that its rooms write nothing after it
        (RFC 6455 section 5.5.1)."""
        first = self._close_code is None
        if first:
            self._close_code = code if told is None else told
        if over:
            self._over()
        if not first:
            return
        self._stop_watch()
        if self._transport is not None:
            self._write(framed(CLOSE, close_payload(code, reason)))
            self.resume_reading()  # the peer's close frame has to be read
            self._abort_later()

    def _abort_later(self, timeout: float = CLOSE_TIMEOUT) -> None:
        if self._transport is not None:
            if self._close_timer is not None:
                self._close_timer.cancel()
            self._close_timer = asyncio.get_running_loop().call_later(timeout, self.abort)

    def abort(self) -> None:
        """At once, in the kernel too: it would offer what is unsent for minutes to a peer that does not read."""
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):  # it is gone already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
            if self._parser is not None and self._parser.unfinished:
                asyncio.get_running_loop().call_soon(self._read_on)

    def shutdown(self) -> None:
        """Uvicorn's last call, when the drain is over."""
        if self.raw_write is None:  # the handshake was not answered: there are no frames yet
            self._close_code = codes.SHUTDOWN.code
            self._over()
            self.refuse(refusal(503, [(b"retry-after", b"1")], b""))
        else:
            self._close(codes.SHUTDOWN.code, codes.SHUTDOWN.reason, over=True)
            self._hang_up()
