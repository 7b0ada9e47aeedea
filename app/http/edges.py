"""What an edge asks of the gateways, on the internal port: to say goodbye to the sessions that came through it."""

import sys
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, WebSocket

from app.gateway.edges import EDGE_ID
from app.gateway.gateway import Gateway

#: How an edge says which one it is.
HEADER = b"x-carillon-edge"

router = APIRouter(tags=["edge"])


@router.post("/edges/{edge}/drain", summary="Say goodbye to the sessions of an edge", status_code=204)
async def drain(
    request: Request,
    edge: Annotated[str, Path(pattern=f"^{EDGE_ID.pattern}$")],
    window: Annotated[float, Query(gt=0, le=3600, description="Seconds over which they are spread")] = 30.0,
) -> Response:
    """On every node, at a pace, with 3001. The edge's name is what entitles to it: no key is needed, and a name that no
    edge has is answered the same way. To be asked again while connections are left."""
    gateway: Gateway = request.app.state.gateway
    gateway.edges.drain(edge, window)
    return Response(status_code=204)


def edge_of(websocket: WebSocket, not_trusted: Callable[[str], None]) -> str:
    """Through which edge an upgrade came; empty where nobody trusted says so. Who says so and is not goes to
    `not_trusted`, by its address.

    Uvicorn gives a client no port exactly where it has believed a proxy about its address (`trusted_proxies`)."""
    client = websocket.scope.get("client")
    for name, value in websocket.scope["headers"]:
        if name == HEADER and client is not None:
            named: str = value.decode("latin-1")
            if client[1] != 0:
                not_trusted(client[0])
            elif EDGE_ID.fullmatch(named):
                return sys.intern(named)
            return ""
    return ""
