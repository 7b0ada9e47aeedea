"""N7: what is served on which port, by the socket and not by anything that a client says; and CORS (A6)."""

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.http.ports import INTERNAL_PATHS, PortGate
from app.main import create_app
from app.settings import Settings, load
from tests.support.waiting import until
from tests.unit.http.conftest import KEY

INTERNAL_PORT = 9000


@pytest.fixture
def settings() -> Settings:
    return load(
        internal_port=INTERNAL_PORT, api_keys=KEY, dev=True, allowed_origins="https://example.org,http://localhost:3000"
    )


def client(app: FastAPI, port: int) -> httpx.AsyncClient:
    """The port of the URL is the socket's in this transport; the Host header can be anything."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://here:{port}")


@pytest.mark.parametrize("path", INTERNAL_PATHS)
async def test_internal_paths_are_not_on_the_public_port(app: FastAPI, path: str) -> None:
    async with client(app, 8000) as public:
        for asked in (path, f"{path}/", f"{path}/x"):
            answer = await public.get(asked, headers={"Host": f"here:{INTERNAL_PORT}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, 104), asked


@pytest.mark.parametrize("path", ["/", "/static/demo/demo.js", "/demo/token", "/ws"])
async def test_public_paths_are_not_on_the_internal_port(app: FastAPI, path: str) -> None:
    async with client(app, INTERNAL_PORT) as internal:
        assert (await internal.get(path, headers={"Host": "here:8000"})).status_code == 404


async def test_each_port_serves_its_own(app: FastAPI) -> None:
    async with client(app, 8000) as public, client(app, INTERNAL_PORT) as internal:
        assert (await public.get("/")).status_code == 200
        assert (await internal.get("/healthz")).status_code == 200
        answer = await internal.post("/api/publish", json={"room": "chat:x", "data": 1}, headers={"X-API-Key": KEY})
        assert answer.status_code == 200


async def test_the_answer_does_not_tell_what_is_on_the_other_port(app: FastAPI) -> None:
    async with client(app, 8000) as public:
        hidden, missing = await public.get("/api/publish"), await public.get("/nothing")
        assert (hidden.status_code, hidden.content) == (missing.status_code, missing.content)


async def asked(app: Any, scope: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """What an ASGI server would be sent."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": f"{scope['type']}.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def _reached(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "reached"})


@pytest.mark.parametrize("root", ["", "/behind"])
async def test_a_root_path_hides_nothing_from_the_gate(root: str) -> None:
    """The router takes it off; so must the gate, or the whole API were public."""
    gate = PortGate(_reached, INTERNAL_PORT)
    scope: dict[str, Any] = {"type": "http", "path": f"{root}/api/publish", "root_path": root, "headers": []}
    public = await asked(gate, scope | {"server": ("10.0.0.1", 8000)})
    internal = await asked(gate, scope | {"server": ("10.0.0.1", INTERNAL_PORT)})
    assert (public[0]["status"], internal[0]["type"]) == (404, "reached")


async def test_a_server_that_does_not_name_its_port_serves_only_what_is_public() -> None:
    gate = PortGate(_reached, INTERNAL_PORT)
    for server in (None, ("/run/carillon.sock", None)):
        scope: dict[str, Any] = {"type": "http", "path": "/metrics", "server": server, "headers": []}
        assert (await asked(gate, scope))[0]["status"] == 404


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ({"websocket.http.response": {}}, "websocket.http.response.start"),
        ({}, "websocket.close"),
        (None, "websocket.close"),
    ],
    ids=["denial response", "none", "absent"],
)
async def test_an_upgrade_on_the_internal_port_is_refused_on_every_server(extensions: Any, expected: str) -> None:
    scope = {"type": "websocket", "path": "/ws", "server": ("", INTERNAL_PORT), "headers": [], "extensions": extensions}
    assert (await asked(PortGate(_reached, INTERNAL_PORT), scope))[0]["type"] == expected


class TestPathTricks:
    """On a real server, as what it decodes and normalises decides. Raw bytes: a client library would tidy them up."""

    @pytest.fixture
    async def port(self) -> AsyncIterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as public:
            app = create_app(load(internal_port=INTERNAL_PORT, api_keys=KEY))
            server = uvicorn.Server(uvicorn.Config(app, log_config=None))
            serving = asyncio.create_task(server.serve(sockets=[public]))
            try:
                await until(lambda: server.started or serving.done(), "the server starts")
                yield public.getsockname()[1]
            finally:
                server.should_exit = True
                await serving

    async def status(self, port: int, target: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = '{"room":"chat:x","data":1}'
        head = f"Host: here:{INTERNAL_PORT}\r\nX-Forwarded-Port: {INTERNAL_PORT}\r\nX-API-Key: {KEY}\r\n"
        writer.write(
            f"POST {target} HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        async with asyncio.timeout(5):
            line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    async def test_none_reaches_the_api(self, port: int) -> None:
        targets = [
            "/api/publish",
            "/api/publish/",
            "//api/publish",
            "/api//publish",
            "/./api/publish",
            "/x/../api/publish",
            "/ws/../api/publish",
            "/static/../api/publish",
            "/%61pi/publish",
            "/api%2fpublish",
            "/%2fapi/publish",
            "/%2e/api/publish",
            "/%2561pi/publish",
            "/API/publish",
            "/api/publish?x=/ws",
            "/api/publish;x",
            "/api/publish%00",
            "/api\\publish",
            f"http://here:{INTERNAL_PORT}/api/publish",
        ]
        answers = {target: await self.status(port, target) for target in targets}
        assert not {target: status for target, status in answers.items() if status not in (400, 404)}


class TestCors:
    """A6: the same origins as for the upgrade."""

    PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}  # noqa: RUF012

    @pytest.mark.parametrize("origin", ["https://example.org", "http://localhost:3000"])
    async def test_an_allowed_page_may_read(self, app: FastAPI, origin: str) -> None:
        async with client(app, 8000) as public:
            answer = await public.get("/", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers
            preflight = await public.options("/demo/token", headers={"Origin": origin, **self.PREFLIGHT})
            assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)

    @pytest.mark.parametrize("origin", ["https://evil.org", "http://example.org", "https://example.org:8443", "null"])
    async def test_another_page_may_not(self, app: FastAPI, origin: str) -> None:
        async with client(app, 8000) as public:
            assert "access-control-allow-origin" not in (await public.get("/", headers={"Origin": origin})).headers
            preflight = await public.options("/demo/token", headers={"Origin": origin, **self.PREFLIGHT})
            assert preflight.status_code == 400

    async def test_a_preflight_does_not_open_the_other_port(self, app: FastAPI) -> None:
        async with client(app, 8000) as public:
            headers = {"Origin": "https://example.org", **self.PREFLIGHT}
            assert (await public.options("/api/publish", headers=headers)).status_code == 404

    async def test_without_a_list_there_is_no_cors(self) -> None:
        async with client(create_app(load(internal_port=0)), 8000) as public:
            answer = await public.get("/healthz", headers={"Origin": "http://here:8000"})
            assert not [name for name in answer.headers if name.startswith("access-control")]
