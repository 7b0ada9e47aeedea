"""How a body is read: within its bounds, and strictly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.codes import CommandError
from app.http import body
from app.http.api_types import Batch, Publish
from app.settings import Settings
from tests.unit.http.conftest import KEY


async def test_a_body_of_exactly_the_limit_is_read(api: httpx.AsyncClient, settings: Settings) -> None:
    head, tail = b'{"room": "chat:x", "data": "', b'"}'
    for excess, status in ((0, 200), (1, 413)):
        filling = b"x" * (settings.max_body_bytes - len(head) - len(tail) + excess)
        answer = await api.post("/api/publish", content=head + filling + tail)
        assert answer.status_code == status, answer.text


async def test_reading_stops_at_the_limit_and_is_counted(
    api: httpx.AsyncClient, app: FastAPI, settings: Settings
) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1000
            yield b" " * 1000

    assert (await api.post("/api/publish", content=endless())).status_code == 413
    assert read <= settings.max_body_bytes + 1000
    assert app.state.gateway.counters.limit_hits["max_body_bytes"] == 1


async def test_a_wrong_key_is_refused_before_the_body_is_read(api: httpx.AsyncClient) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    assert (await api.post("/api/publish", content=untouched(), headers={"X-API-Key": "no"})).status_code == 401


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"])
async def test_the_content_type_does_not_matter(api: httpx.AsyncClient, kind: str | None) -> None:
    """`curl -d` sends a form's; there is one format only, so nothing can be confused."""
    headers = {} if kind is None else {"Content-Type": kind}
    answer = await api.post("/api/publish", content=b'{"room":"chat:x","data":1}', headers=headers)
    assert answer.status_code == 200


async def call(app: FastAPI, receive: Any) -> int:
    """POST /api/publish on a bare ASGI server whose body comes by `receive`; the status."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"x-api-key", KEY.encode())]
    scope = {"type": "http", "method": "POST", "path": "/api/publish", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return statuses[0]


async def test_a_body_that_never_ends_is_given_up(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT", 0.05)

    async def never() -> Any:
        await asyncio.get_running_loop().create_future()

    assert await call(app, never) == 408


async def test_a_client_that_leaves_in_the_middle_is_no_fault_of_ours(app: FastAPI) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def leaves() -> Any:
        return next(messages)

    assert await call(app, leaves) == 400


@pytest.mark.parametrize("data", [b"1.10", b"1e2", b'"\\u00e9"', b'{"a":1,"a":2}', b"-0.0", b"18446744073709551615"])
def test_data_is_kept_as_it_was_sent(data: bytes) -> None:
    assert bytes(body.decode(b'{"room":"chat:x","data":' + data + b"}", Publish).data) == data


@pytest.mark.parametrize(
    "command",
    [
        b'{"publish": {"room": "chat:x", "data": 1, "data": 2}}',
        b'{"publish": {"room": "chat:x", "data": 1}, "publish": {"room": "chat:y", "data": 1}}',
        b'{"publish": {"room": "chat:x", "roo\\u006d": "chat:y", "data": 1}}',
    ],
)
def test_no_name_may_come_twice_in_a_command_of_a_batch(command: bytes) -> None:
    with pytest.raises(CommandError, match="107 body: an object has a member twice"):
        body.decode(b'{"commands": [' + command + b"]}", Batch, nested=True)


def test_an_error_names_its_place() -> None:
    with pytest.raises(CommandError, match=r"\$\.commands\[1\]\.publish\.room"):
        body.decode(
            b'{"commands": [{}, {"publish": {"room": 1, "data": 1}}]}',
            Batch,
            nested=True,
        )
