"""The first bytes of a connection: a whole upgrade is a WebSocket at once, all else is for the HTTP protocol."""

from collections.abc import AsyncIterator

import pytest

from app.server.arrival import Arrival
from app.server.http_protocol import HttpProtocol
from app.server.websocket_protocol import WebSocketProtocol
from tests.support.listener import GET, UPGRADE, Served, serving

PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\0"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(max_head_bytes=1000, max_head_fields=10) as served:
        yield served


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[HttpProtocol]:
    """The HTTP protocols that were made."""
    made: list[HttpProtocol] = []
    init = HttpProtocol.__init__

    def noting(self: HttpProtocol, *given: object) -> None:
        made.append(self)
        init(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpProtocol, "__init__", noting)
    return made


async def test_an_upgrade_in_one_piece_needs_no_http_protocol(served: Served, made: list[HttpProtocol]) -> None:
    reader, writer = await served.connect(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert not made
    assert [type(one) for one in served.state.connections] == [WebSocketProtocol]
    assert not served.state.half_open
    writer.close()


async def test_what_comes_right_behind_the_head_is_read(served: Served) -> None:
    reader, writer = await served.connect(UPGRADE + PING)
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(2) == PONG
    writer.close()


@pytest.mark.parametrize("cut", [1, 20, len(UPGRADE) - 1])
async def test_an_upgrade_in_two_pieces_is_one_too(served: Served, made: list[HttpProtocol], cut: int) -> None:
    reader, writer = await served.connect(UPGRADE[:cut])
    await served.until(lambda: len(made) == 1)
    writer.write(UPGRADE[cut:] + PING)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await reader.readexactly(2) == PONG
    writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (GET, b"200"),
        (UPGRADE.replace(b"websocket\r\n", b"h2c\r\n", 1), b"200"),
        (UPGRADE.replace(b"connection: upgrade\r\n", b""), b"200"),
        (UPGRADE.replace(b"\r\n\r\n", b"\r\n" + b"x: y\r\n" * 10 + b"\r\n"), b"431"),
        (UPGRADE.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * 1000 + b"\r\n\r\n"), b"431"),
        (UPGRADE.replace(b"GET /ws", b"GET /ws x"), b"400"),
        (b"\x16\x03\x01\x02\0\x01", b"400"),
    ],
    ids=["a request", "another upgrade", "no upgrade asked", "fields", "bytes", "garbage", "TLS"],
)
async def test_all_else_is_for_the_http_protocol(
    served: Served, made: list[HttpProtocol], head: bytes, status: bytes
) -> None:
    reader, writer = await served.connect(head)
    assert (await reader.readline()).split()[1] == status
    assert len(made) == 1
    writer.close()


@pytest.mark.parametrize("replaced", [(b"GET", b"POST"), (b"version: 13", b"version: 8"), (b"key: d", b"key: !")])
async def test_a_bad_upgrade_gets_a_proper_answer(served: Served, replaced: tuple[bytes, bytes]) -> None:
    answer = await served.answer(UPGRADE.replace(*replaced))
    assert answer.split()[1] in (b"400", b"405", b"426")


async def test_one_that_says_nothing_is_half_open_and_leaves_no_trace(served: Served) -> None:
    _, writer = await served.connect()
    await served.until(lambda: [type(one) for one in served.state.half_open] == [Arrival])
    writer.close()
    await served.until(lambda: not served.state.half_open and not served.state.connections)
