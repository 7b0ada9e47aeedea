"""The call of an edge that goes away, and whose word counts about where a session came through."""

import time

import httpx
import pytest
from fastapi import WebSocket
from structlog.testing import capture_logs

from app.gateway.edges import CALLS
from app.http.edges import edge_of
from app.testing import TestGateway

EDGE = "edge-1-0123456789abcdef"
BELIEVED = ("203.0.113.9", 0)
DIRECT = ("203.0.113.9", 40_000)


def upgrade(client: tuple[str, int] | None, *named: str) -> WebSocket:
    headers = [(b"x-carillon-edge", value.encode()) for value in named]
    scope = {"type": "websocket", "headers": headers, "client": client}
    return WebSocket(scope, receive=None, send=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "named", "edge"),
    [
        (BELIEVED, [EDGE], EDGE),
        (DIRECT, [EDGE], ""),
        (None, [EDGE], ""),
        (BELIEVED, [], ""),
        (BELIEVED, ["short"], ""),
        (BELIEVED, ["x" * 65], ""),
        (BELIEVED, ["edge 1 0123456789abcdef"], ""),
    ],
)
def test_the_edge_is_what_a_trusted_proxy_says(client: tuple[str, int], named: list[str], edge: str) -> None:
    strangers: list[str] = []
    assert edge_of(upgrade(client, *named), strangers.append) == edge
    assert strangers == ([client[0]] if client == DIRECT else [])


def test_sessions_of_one_edge_share_its_name() -> None:
    nobody: list[str] = []
    one, other = (edge_of(upgrade(BELIEVED, EDGE), nobody.append) for _ in range(2))
    assert one is other


async def test_an_edge_that_is_not_trusted_is_told_once() -> None:
    """It would be taken for the client, and cut its clients off when it goes: without a word, and without an error."""
    async with TestGateway() as node:
        with capture_logs() as logs:
            for _ in range(3):
                node.gateway.edges.not_trusted("10.1.2.3")
    (said,) = (line for line in logs if line["event"] == "edge.not_trusted")
    assert "10.1.2.3" in repr(said)
    assert "CARILLON_TRUSTED_PROXIES" in repr(said)


async def test_a_session_keeps_it() -> None:
    async with TestGateway() as node:
        await node.open(headers={"x-carillon-edge": EDGE})
        assert [session.edge for session in node.gateway.registry.by_id.values()] == [""], "the client itself says so"


class TestTheCall:
    async def test_needs_no_key_and_tells_nothing(self, api: httpx.AsyncClient) -> None:
        api.headers.pop("X-API-Key")
        for name in (EDGE, EDGE, "nobody-0123456789abcdef"):
            answer = await api.post(f"/edges/{name}/drain")
            assert (answer.status_code, answer.content) == (204, b"")

    @pytest.mark.parametrize("window", ["0", "-1", "3601", "nan", "soon"])
    async def test_a_window_that_cannot_be_is_refused(self, api: httpx.AsyncClient, window: str) -> None:
        answer = await api.post(f"/edges/{EDGE}/drain?window={window}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 107)

    @pytest.mark.parametrize("name", ["short", "x" * 65, "edge%201%200123456789"])
    async def test_so_is_what_is_no_name(self, api: httpx.AsyncClient, name: str) -> None:
        assert (await api.post(f"/edges/{name}/drain")).status_code == 400

    async def test_calls_that_come_too_fast_are_429(self, api: httpx.AsyncClient) -> None:
        began = time.monotonic()
        answers = [(await api.post(f"/edges/{EDGE}/drain")).status_code for _ in range(30 * CALLS)]
        took = time.monotonic() - began
        assert set(answers) == {204, 429}
        assert answers.count(204) <= (10 + took) * CALLS + 1
