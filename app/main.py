"""The whole wiring on one page: settings -> broker -> gateway -> HTTP."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import __version__, hooks
from app.broker.factory import create_broker
from app.gateway.gateway import Gateway
from app.gateway.hook_calls import HookCalls
from app.http import api, demo, edges, errors, health, metrics, openapi, websocket
from app.http.hook_dependencies import HookDependencies
from app.http.ports import PortGate
from app.http.requests import RequestCount
from app.server.deafness import Deafness
from app.server.pod import own_slot
from app.server.pulse import Pulse
from app.settings import Settings, load

DESCRIPTION = """The server API of a real-time gateway: one publish, every socket, on any pod.

Every failure answers `{"error": {"code", "reason", "temporary"}}`; the codes are explained in `docs/protocol.md`."""


def create_app(settings: Settings | None = None, *, hooks: object = hooks) -> FastAPI:
    """The application of one node. `hooks`: a module or object with the functions that `app/hooks.py` describes."""
    settings = settings or load()
    # Differs for each process that ever ran, also after a restart on the same host.
    node = f"{settings.pod_name or socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    hook_calls = HookCalls(hooks, settings.hook_timeout)
    slot = own_slot()
    gateway = Gateway(settings, create_broker(settings, node), hook_calls, node, slot.pod.id)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await gateway.start()
        watches = [asyncio.create_task(watch.run()) for watch in (Pulse(gateway, slot), Deafness(gateway, slot))]
        yield {"gateway": gateway}
        for watch in watches:
            watch.cancel()
        await gateway.stop()

    app = FastAPI(
        title="Carillon", version=__version__, lifespan=lifespan, description=DESCRIPTION, redirect_slashes=False
    )
    app.state.gateway = gateway
    app.state.slot = slot
    dependencies = HookDependencies(hook_calls, app)
    app.include_router(websocket.router(dependencies))
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(api.router)
    app.include_router(edges.router)
    errors.install(app)
    openapi.install(app)
    if settings.dev:
        app.include_router(demo.router)
        app.mount("/static/demo", demo.static)
    app.add_middleware(RequestCount)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    if not dependencies:
        app.add_middleware(websocket.Upgrades)
    app.add_middleware(PortGate, internal_port=settings.internal_port)
    return app
