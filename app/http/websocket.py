"""`/ws` and `/ws/{room}`: the upgrade, its checks and credentials, and the hand-over to a session."""

from functools import partial

from fastapi import APIRouter, WebSocket
from starlette.types import ASGIApp, Receive, Scope, Send

from app import codes
from app.gateway.admission import Refusal
from app.gateway.commands import enter_by_ticket, enter_by_token
from app.gateway.gateway import Gateway
from app.gateway.session import Enter, Session
from app.http.edges import edge_of
from app.http.errors import HttpError, failure
from app.http.hook_dependencies import DependenciesFailed, HookDependencies, HookValues, UpgradeAnswered
from app.http.origin import origin_allowed
from app.http.portable import PortableConnection
from app.http.ports import routed_path
from app.http.sticky import leads_here
from app.wire.plain import JSON, MSGPACK, MSGPACK_SUBPROTOCOL

PATH = "/ws"


def router(dependencies: HookDependencies) -> APIRouter:
    """The routes for hooks with dependencies, which FastAPI resolves."""
    router = APIRouter()

    @router.websocket(PATH)
    async def plain(websocket: WebSocket) -> None:
        await _serve(websocket, None, dependencies)

    @router.websocket(PATH + "/{room:path}")
    async def plain_in_room(websocket: WebSocket, room: str) -> None:
        await _serve(websocket, room, dependencies)

    return router


class Upgrades:
    """ASGI middleware for hooks without dependencies: upgrades go straight to the gateway (H6).

    What FastAPI does for a route costs more than all the rest of this handshake."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            head, _, room = routed_path(scope).partition(PATH)
            if not head and (not room or room[0] == "/"):
                await _serve(WebSocket(scope, receive, send), room[1:] if room else None, None)
                return
        await self._app(scope, receive, send)


async def _serve(websocket: WebSocket, room: str | None, dependencies: HookDependencies | None) -> None:
    gateway: Gateway = websocket.app.state.gateway
    address = websocket.client.host if websocket.client is not None else ""
    refusal = _refusal(gateway, websocket, address)
    hook_values: HookValues | None = None
    if refusal is None and dependencies is not None:
        try:
            hook_values = await dependencies.resolve(websocket)
        except UpgradeAnswered:
            gateway.counters.upgrades_refused["hook"] += 1
            return
        except DependenciesFailed:
            refusal = Refusal(500, "hook_failed")
        else:
            refusal = gateway.admission.full(address, gateway.unready())  # that may have changed meanwhile
    if refusal is not None:
        gateway.counters.upgrades_refused[refusal.reason] += 1
        await _refuse(websocket, refusal)
        return
    binary = MSGPACK_SUBPROTOCOL in websocket.scope["subprotocols"]
    await websocket.accept(MSGPACK_SUBPROTOCOL if binary else None)
    format = MSGPACK if binary else JSON
    edge = edge_of(websocket, gateway.edges.not_trusted)
    fast = websocket.scope.get("extensions", {}).get("carillon.connection")
    if fast is None:
        portable = PortableConnection(websocket, address)
        session = Session(gateway, portable, format, room, hook_values, edge)
        gateway.add(session, _credentials(gateway, websocket))
        await portable.serve(session)
    else:
        # The connection outlives this task: the session is called back from now on, and keeps nothing of it (H3).
        connection = fast["connection"]
        connection.address = address
        session = Session(gateway, connection, format, room, hook_values, edge)
        gateway.add(session, _credentials(gateway, websocket))
        connection.hand_over(session)


def _refusal(gateway: Gateway, websocket: WebSocket, address: str) -> Refusal | None:
    origin = websocket.headers.get("origin")
    if not origin_allowed(origin, websocket.headers.get("host", ""), gateway.settings.allowed_origins):
        return Refusal(403, "origin")
    now = gateway.now()
    if gateway.rebalance.refuses(now) and leads_here(websocket):
        return Refusal(503, "above_share")  # the edge passes it on, and sets another cookie (N4)
    return gateway.admission.refusal(address, gateway.unready(), now)


#: The catalogue's codes for refusals that end by themselves.
_CODES = {429: codes.TOO_MANY_REQUESTS, 500: codes.INTERNAL, 503: codes.INTERNAL}


async def _refuse(websocket: WebSocket, refusal: Refusal) -> None:
    """An HTTP answer before the handshake, where the server can give one (N4)."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        headers = {"Retry-After": str(refusal.retry_after)} if refusal.status in _CODES else {}
        code = _CODES.get(refusal.status, codes.PERMISSION_DENIED)
        error = HttpError(code, refusal.reason, status=refusal.status, headers=headers)
        await websocket.send_denial_response(failure(error))
    else:
        await websocket.close()


def _credentials(gateway: Gateway, websocket: WebSocket) -> Enter | None:
    """What the upgrade carries: a bearer token, a one-time ticket, or a cookie; None: `auth` has to come."""
    authorization = websocket.headers.get("authorization", "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return partial(enter_by_token, token=token.strip())
    ticket = websocket.query_params.get("ticket") if websocket.scope["query_string"] else None
    if ticket is not None:
        return partial(enter_by_ticket, ticket=ticket)
    # A cookie is sent by the browser on its own: only with an Origin, which was checked, does it say what is wanted.
    if gateway.settings.token_cookie and "origin" in websocket.headers:
        cookie = websocket.cookies.get(gateway.settings.token_cookie)
        if cookie:
            return partial(enter_by_token, token=cookie)
    return None
