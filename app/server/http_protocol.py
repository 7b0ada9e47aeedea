"""HTTP on a client's socket: uvicorn's httptools protocol, bounded in the time and size of request heads (H5).

A WebSocket begins only after the whole head was parsed, so slow and endless heads have to be met here.
"""

import asyncio
from asyncio import AbstractEventLoop, Transport
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.state import NodeState

#: Requests that may wait behind one that is not answered yet. Reading is paused by then, but one read holds thousands
#: of them, and each costs kilobytes.
PIPELINED = 16


class HttpProtocol(HttpToolsProtocol):
    """One connection until it ends or becomes a WebSocket. Whatever a client sends, nothing is logged, only counted."""

    def __init__(
        self,
        config: Config,
        server_state: NodeState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.node = server_state
        self._awaiting_head = False  # from the connection, or the first byte of a further request, to the head's end
        self._received = 0  # bytes that came while awaiting this head
        self._head_bytes = 0  # bytes of this head that the parser has handed over
        self._head_fields = 0
        self._after_answer = 0  # bytes of a request's body that came after its response
        self._between_messages = False  # the last request has been read to its end, nothing came since
        self._refusal: tuple[HTTPStatus, str] | None = None  # why the parser was stopped
        self._refused = False

    # What asyncio calls

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        limit = self.node.settings.max_half_open
        if limit and len(self.node.half_open) >= limit and not self._internal:
            self.node.counters.limit_hits["max_half_open"] += 1
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._await_head()

    @property
    def _internal(self) -> bool:
        """Probes, metrics and the API are let in however full the public port is: this one is not the clients' (N7)."""
        return self.server is not None and self.server[1] == self.node.settings.internal_port

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.half_open.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._between_messages:
            self._await_head()
        if self._awaiting_head:
            self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._refusal is None:
                self.node.counters.bad_requests += 1
                self._refuse(HTTPStatus.BAD_REQUEST)
            else:
                self._count_and_refuse(*self._refusal)
        else:
            # The parser hands over whole fields only: one endless field shows in what was received.
            if self._awaiting_head and self._received > self.node.settings.max_head_bytes:
                self._count_and_refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "max_head_bytes")

    # What the parser calls

    def on_message_begin(self) -> None:
        if not self._awaiting_head:  # a pipelined request
            self._await_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_fields += 1
        if self._head_fields > self.node.settings.max_head_fields:
            self._stop("max_head_fields")
        self._measure(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaiting_head = False
        self.node.half_open.pop(self, None)
        if len(self.pipeline) >= PIPELINED:
            self._stop("pipelined_requests", HTTPStatus.TOO_MANY_REQUESTS)
        super().on_headers_complete()
        if self.node.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            # Answered before its end: what still comes is not kept, but it has an end all the same.
            self._after_answer += len(body)
            if self._after_answer > self.node.settings.max_body_bytes:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._after_answer = 0
        self._between_messages = True
        super().on_message_complete()

    @property
    def _answering(self) -> bool:
        """Whether the response to an earlier request is still under way, or not yet with the kernel."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        return under_way or self.transport.get_write_buffer_size() > 0

    # What the server calls

    def head_timed_out(self) -> None:
        """`head_timeout` has passed and the head is not complete."""
        if self._received:
            self._count_and_refuse(HTTPStatus.REQUEST_TIMEOUT, "head_timeout")
        else:
            self.node.counters.limit_hits["head_timeout"] += 1
            self.node.half_open.pop(self, None)
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    # Within

    def _await_head(self) -> None:
        self._awaiting_head = True
        self._between_messages = False
        self._received = self._head_bytes = self._head_fields = 0
        self.node.half_open.pop(self, None)  # so that it goes to the end
        self.node.half_open[self] = self.loop.time() + self.node.settings.head_timeout

    def _measure(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.node.settings.max_head_bytes:
            self._stop("max_head_bytes")

    def _stop(self, limit: str, status: HTTPStatus = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) -> None:
        """Called within the parser, which stops and makes `feed_data` raise."""
        self._refusal = (status, limit)
        raise httptools.HttpParserError(limit)

    def _count_and_refuse(self, status: HTTPStatus, limit: str) -> None:
        self.node.counters.limit_hits[limit] += 1
        self._refuse(status)

    def _refuse(self, status: HTTPStatus) -> None:
        self._refused = True
        self.node.half_open.pop(self, None)
        if self.cycle is None or self.cycle.response_complete:  # else it would land in the midst of a response
            body = status.phrase.encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n%b\r\n%b"
                % (status, body, len(body), b"retry-after: 1\r\n" if status == 503 else b"", body)
            )
        self.transport.close()

    def _upgrade(self, rest: bytes) -> None:
        """`rest` came right behind the head, from a client that does not wait for the answer."""
        if self._should_upgrade() and self._answering:
            self.node.counters.bad_requests += 1
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif self._should_upgrade():
            self.handle_websocket_upgrade()
            if rest and not self.transport.is_closing():
                cast("asyncio.Protocol", self.transport.get_protocol()).data_received(rest)
            self.parser = None  # type: ignore[assignment]  # it refers to us, and nobody calls our connection_lost (H4)
        elif self.cycle is not None:  # h2c and the like: answered as plain HTTP, the last on this connection
            self.cycle.keep_alive = False
