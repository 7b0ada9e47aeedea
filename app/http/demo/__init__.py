"""The demo at `/`, in development mode only (N7): its page, tokens for everybody, and kill-my-worker."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from app.auth.tokens import sign
from app.gateway.gateway import Gateway
from app.http.origin import origin_allowed

_FILES = Path(__file__).parent / "static"

TOKEN_TTL = 3600  # seconds

static = StaticFiles(directory=_FILES)


def _own_page(request: Request) -> Gateway:
    """Other web pages have no business here. Raises 403."""
    gateway: Gateway = request.app.state.gateway
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if not origin_allowed(origin, host, gateway.settings.allowed_origins):
        raise HTTPException(403, "origin")
    return gateway


OwnPage = Annotated[Gateway, Depends(_own_page)]

router = APIRouter(include_in_schema=False)


class TokenRequest(BaseModel):
    user: str = Field(min_length=1, max_length=64)


class KillRequest(BaseModel):
    node: str


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(_FILES / "index.html", headers={"Cache-Control": "no-cache"})


@router.post("/demo/token")
async def token(wanted: TokenRequest, gateway: OwnPage) -> dict[str, str]:
    """A token for the demo's rooms, for whoever asks."""
    return {"token": sign(gateway.settings, wanted.user, ["demo:*"], ["demo:*"], TOKEN_TTL)}


@router.post("/demo/kill", status_code=202)
async def kill(wanted: KillRequest, gateway: OwnPage) -> None:
    """Ends a worker with SIGKILL, wherever it runs: its clients come back somewhere else."""
    await gateway.kill(wanted.node)
