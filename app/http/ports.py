"""Which paths are served on which port (N7): clients reach the public one, operators the internal one."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

INTERNAL_PATHS = ("/metrics", "/healthz", "/readyz", "/startupz", "/api", "/docs", "/openapi.json", "/redoc")


class PortGate:
    """ASGI middleware: 404 for an internal path on the public port, and the reverse.

    Goes by the local port of the socket, which no header can change. `internal_port` 0: everything everywhere."""

    def __init__(self, app: ASGIApp, internal_port: int) -> None:
        self._app = app
        self._internal_port = internal_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._internal_port and scope["type"] in ("http", "websocket"):
            port = (scope.get("server") or (None, None))[1]
            if (port == self._internal_port) is not _internal(scope["path"]):
                await _not_found(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _internal(path: str) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in INTERNAL_PATHS)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"Not Found"})
    else:
        await PlainTextResponse("Not Found", 404)(scope, receive, send)
