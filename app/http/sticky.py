"""The edge's sticky cookie, as far as the gateway reads it."""

from hashlib import md5

from fastapi import WebSocket

#: As in nginx/nginx.conf.template.
COOKIE = "carillon_edge"


def leads_here(websocket: WebSocket) -> bool:
    """Whether the upgrade came because of its cookie: the edge names a pod by the MD5 of its address and port there.

    Where the edge reaches the pod by another address than the pod's own, no cookie does."""
    cookie = websocket.cookies.get(COOKIE)
    server = websocket.scope.get("server")
    return cookie is not None and server is not None and cookie == peer_id(server[0], server[1])


def peer_id(host: str, port: int | None) -> str:
    """What the edge calls a pod in its cookie."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return md5(address.encode(), usedforsecurity=False).hexdigest()
