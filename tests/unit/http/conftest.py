"""The application in process, on the broker in memory."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings, load

KEY = "a-key-of-the-tests-only"


@pytest.fixture
def settings() -> Settings:
    return load(
        internal_port=0,
        api_keys=f"another-key-of-the-tests,{KEY}",
        max_body_bytes=10_000,
        namespaces={"kept": {"history_size": 3}, "hall": {"presence": True}},
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """Started, as a server would do it."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here", headers={"X-API-Key": KEY}) as client:
        yield client
