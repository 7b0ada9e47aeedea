"""Counts HTTP responses, by route template: never by the path that was asked."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry import metrics

_NO_ROUTE = "none"


class RequestCount:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the server answers where the application fails

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # Starlette puts the route that it found into the scope.
            route = getattr(scope.get("route"), "path", None) or _NO_ROUTE
            metrics.HTTP_REQUESTS.labels(route, str(status)).inc()
