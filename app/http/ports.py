"""Which paths are served on which port (N7): clients reach the public one, operators the internal one."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.errors import not_found

INTERNAL_PATHS = (
    "/metrics",
    "/healthz",
    "/readyz",
    "/startupz",
    "/api",
    "/edges",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/asyncapi.json",
)
_FIRST_PARTS = frozenset(path.removeprefix("/") for path in INTERNAL_PATHS)


class PortGate:
    """ASGI middleware: 404 for an internal path on the public port, and the reverse.

    Goes by the local port of the socket, which no header can change. `internal_port` 0: everything everywhere."""

    def __init__(self, app: ASGIApp, internal_port: int) -> None:
        self._app = app
        self._internal_port = internal_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._internal_port and scope["type"] in ("http", "websocket"):
            port = (scope.get("server") or (None, None))[1]
            if (port == self._internal_port) is not _internal(routed_path(scope)):
                await _not_found(scope, receive, send)
                return
        await self._app(scope, receive, send)


def routed_path(scope: Scope) -> str:
    """The path as the router will see it. It must be the very same: otherwise one could slip past the gate."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _internal(path: str) -> bool:
    return path.startswith("/") and path[1:].partition("/")[0] in _FIRST_PARTS


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The application's own 404: the answer does not tell what is on the other port."""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close"})  # before the handshake: the server answers 403
            return
    await not_found()(scope, receive, send)
