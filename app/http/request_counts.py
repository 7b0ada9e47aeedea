"""Counts HTTP responses by route template and status; never by path, which a client chooses."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry import metrics


class RequestCounts:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                metrics.HTTP_REQUESTS.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)
