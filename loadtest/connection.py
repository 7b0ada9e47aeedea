"""One WebSocket of the plain protocol, on websocket-client: its blocking calls give way under gevent."""

import json
from contextlib import suppress
from itertools import count
from socket import SHUT_RDWR
from typing import Any

from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketTimeoutException,
)

#: Seconds for the TCP connection and each step of the handshake.
CONNECT_TIMEOUT = 10.0
#: Seconds of silence after which a client gives a connection up: the default `ping_interval` and 10 more.
SILENCE = 35.0

#: TCP is gone without a close frame.
ABNORMAL = 1006

Message = dict[str, Any]


class Ended(Exception):
    """There is no connection (any more); `reason` is a close code, a status or one word, never a text of the server."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection:
    """Opened by the constructor, which raises Ended."""

    def __init__(self, url: str, token: str) -> None:
        self._ids = count(1)
        self._goodbye = 0
        self._socket = WebSocket(enable_multithread=True, skip_utf8_validation=True)
        try:
            self._socket.connect(
                url,
                timeout=CONNECT_TIMEOUT,
                header=[f"Authorization: Bearer {token}"],
                suppress_origin=True,
                http_no_proxy=["*"],
                redirect_limit=0,
            )
        except WebSocketBadStatusException as error:
            raise Ended(f"HTTP {error.status_code}") from None
        except WebSocketTimeoutException:
            raise Ended("timeout") from None
        except (OSError, WebSocketException, ValueError) as error:
            raise Ended(type(error).__name__) from None

    def send(self, type: str, **fields: Any) -> int:
        """Returns the command's id. Raises Ended."""
        id = next(self._ids)
        self._write({"type": type, "id": id, **fields})
        return id

    def _write(self, message: Message) -> None:
        try:
            self._socket.send(json.dumps(message))
        except (OSError, WebSocketException):
            raise Ended(str(ABNORMAL)) from None

    def receive(self) -> Message:
        """The next message; pings are answered here. Raises Ended."""
        while True:
            message = self._read()
            kind = message["type"]
            if kind == "ping":
                self._write({"type": "pong"})
            elif kind == "goodbye":
                self._goodbye = int(message["code"])
            else:
                return message

    def _read(self) -> Message:
        try:
            opcode, data = self._socket.recv_data()
        except WebSocketTimeoutException:
            raise Ended("silence") from None
        except (OSError, WebSocketException, AttributeError):  # the last where abort() came in between
            raise Ended(str(self._goodbye or ABNORMAL)) from None
        if opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            raise Ended(str(code))
        message: Message = json.loads(data)
        return message

    def enter(self, room: str, since: tuple[str, int] | None) -> Message:
        """Subscribes on a fresh connection; returns the reply. Raises Ended."""
        fields = {"since": {"epoch": since[0], "offset": since[1]}} if since else {}
        id = self.send("subscribe", room=room, **fields)
        while True:
            message = self.receive()
            if message["type"] == "error":
                raise Ended(f"error {message['code']}")
            if message["type"] == "ok" and message.get("id") == id:
                self._socket.settimeout(SILENCE)
                return message

    def abort(self) -> None:
        """Cuts the TCP connection, without a close frame; a `receive` under way raises Ended."""
        with suppress(OSError):
            if self._socket.sock is not None:
                self._socket.sock.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """Frees the socket."""
        self._socket.shutdown()
