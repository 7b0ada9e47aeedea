"""A connection before its first request. Nearly all of them are upgrades whose head comes in one piece: those become
WebSockets at once. Whatever else comes goes to the HTTP protocol, which knows all the ways to be slow or wrong (H5)."""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from app.server.handshake import Head
from app.server.http_protocol import HttpProtocol
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol


class Arrival(asyncio.Protocol):
    """A uvicorn `http=` class. Half open until the first bytes come."""

    __slots__ = ("_app_state", "_config", "_node", "_transport")

    def __init__(
        self,
        config: Config,
        server_state: NodeState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._node = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        node = self._node
        limit = node.settings.max_half_open
        if limit and len(node.half_open) >= limit:
            self._become_http()  # which knows whom to refuse, and how
        else:
            node.connections.add(cast("Any", self))
            node.half_open[self] = asyncio.get_running_loop().time() + node.settings.head_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def data_received(self, data: bytes) -> None:
        upgrade = _Upgrade()
        try:
            upgrade.parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            end: int = found.args[0]
            if end <= self._node.settings.max_head_bytes and upgrade.plain(self._node.settings.max_head_fields):
                self._become_websocket(upgrade.head(), data[end:])
                return
        except httptools.HttpParserError:
            pass
        self._become_http().data_received(data)

    def _become_websocket(self, head: Head, rest: bytes) -> None:
        """`rest` came right behind the head, from a client that does not wait for the answer."""
        transport = self._leave()
        protocol = WebSocketProtocol(self._config, self._node, self._app_state)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.upgrade(head, get_local_addr(transport), get_remote_addr(transport))
        if rest and not transport.is_closing():  # it was refused
            protocol.data_received(rest)

    def _become_http(self) -> HttpProtocol:
        transport = self._leave()
        protocol = HttpProtocol(self._config, self._node, self._app_state)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return protocol

    def _leave(self) -> asyncio.Transport:
        self._node.connections.discard(cast("Any", self))
        self._node.half_open.pop(self, None)
        transport, self._transport = self._transport, None  # breaks the cycle (H4)
        return cast("asyncio.Transport", transport)

    # What the server calls

    def head_timed_out(self) -> None:
        """`head_timeout` has passed and nothing has come."""
        self._become_http().head_timed_out()

    def shutdown(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Upgrade:
    """What the parser finds in the head of an upgrade."""

    __slots__ = ("headers", "parser", "requests", "url")

    def __init__(self) -> None:
        self.requests = 0
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.requests += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def plain(self, most: int) -> bool:
        """Whether it asks for a WebSocket and for nothing out of the ordinary."""
        if self.requests > 1 or len(self.headers) > most or self.parser.get_http_version() != "1.1":
            return False
        return [value.lower() for name, value in self.headers if name == b"upgrade"] == [b"websocket"]

    def head(self) -> Head:
        method = self.parser.get_method().decode("latin-1")
        del self.parser  # it refers to us (H4)
        return Head(method, self.url.decode("latin-1"), self.headers)
