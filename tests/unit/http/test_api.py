"""The server API: what each call does, and what it answers to what cannot be."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.broker.base import Member, Presence
from app.http import api as calls
from app.http.api_types import EXAMPLES
from app.main import create_app
from app.settings import load
from tests.unit.http.conftest import KEY


async def post(api: httpx.AsyncClient, path: str, body: Any, status: int = 200, **options: Any) -> Any:
    answer = await api.post(f"/api/{path}", json=body, **options)
    assert answer.status_code == status, answer.text
    return answer.json()


def code(answer: Any) -> int:
    return int(answer["error"]["code"])


async def test_publish_answers_the_position(api: httpx.AsyncClient) -> None:
    """P1: none in a room without history."""
    assert await post(api, "publish", {"room": "chat:x", "data": None}) == {"epoch": "", "offset": 0}


async def test_a_repeated_key_publishes_nothing_and_other_data_is_refused(api: httpx.AsyncClient) -> None:
    """P4: the same value, however it is written."""
    first = await post(api, "publish", {"room": "chat:x", "data": {"a": 1, "b": 2}, "idempotency_key": "k"})
    assert await post(api, "publish", {"room": "chat:x", "data": {"b": 2, "a": 1}, "idempotency_key": "k"}) == first
    other = {"room": "chat:x", "data": 3, "idempotency_key": "k"}
    assert code(await post(api, "publish", other, status=400)) == 107


@pytest.mark.parametrize(
    ("room", "status", "expected"),
    [("nobody:x", 404, 102), ("#ann", 403, 103), ("a b", 400, 107), ("a{b}", 400, 107), ("\x00", 400, 107)],
)
async def test_a_room_that_cannot_be(api: httpx.AsyncClient, room: str, status: int, expected: int) -> None:
    assert code(await post(api, "publish", {"room": room, "data": 1}, status=status)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"room": 1, "data": 1}',
        b'{"room": "chat:x"}',
        b'{"room": "chat:x", "data": 1, "more": 2}',
        b'{"room": "chat:x", "data": 1, "data": 2}',
        b'{"room": "chat:x", "data": 1e999}',
        b'{"room": "chat:x", "data": 123456789012345678901234567890}',
        b'{"room": "chat:x", "data": NaN}',
        b'{"room": "chat:x", "data": "\xff"}',
        b'{"room": "chat:x", "data": "\\ud800"}',
        b'{"room": "chat:x", "data": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"room": "chat:x", "data": ' + b"[" * 4000 + b"]" * 4000 + b"}",
    ],
    ids=lambda body: repr(body[:50]),
)
async def test_a_malformed_body_is_a_bad_request(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post("/api/publish", content=body)
    assert (answer.status_code, code(answer.json())) == (400, 107)


async def test_too_much_is_refused_before_it_is_kept(api: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in range(1000):
            yield b" " * 1000

    answer = await api.post("/api/publish", content=endless())
    assert (answer.status_code, code(answer.json())) == (413, 106)


@pytest.mark.parametrize("key", [None, "", "wrong", "a-key-of-the-tests-onl", "ä"])
async def test_without_a_key_nobody_gets_in(api: httpx.AsyncClient, key: str | None) -> None:
    api.headers.pop("X-API-Key")
    headers = {} if key is None else {"X-API-Key": key.encode("latin-1")}
    assert code(await post(api, "publish", {"room": "chat:x", "data": 1}, 401, headers=headers)) == 101


async def test_broadcast_tells_of_each_room(api: httpx.AsyncClient) -> None:
    answer = await post(api, "broadcast", {"rooms": ["chat:a", "nobody:b", "chat:c"], "data": 1})
    assert [result["room"] for result in answer["results"]] == ["chat:a", "nobody:b", "chat:c"]
    assert [result.get("error", {}).get("code") for result in answer["results"]] == [None, 102, None]


async def test_one_failing_command_of_a_batch_does_not_stop_the_others(api: httpx.AsyncClient) -> None:
    commands = [
        {"publish": {"room": "nobody:x", "data": 1}},
        {},
        {"publish": {"room": "chat:x", "data": 1}, "disconnect": {"user": "ann"}},
        {"publish": {"room": "chat:x", "data": 1}},
        {"broadcast": {"rooms": ["chat:x"], "data": 1}},
        {"send_to_user": {"user": "ann", "data": 1}},
        {"disconnect": {"user": "ann"}},
        {"unsubscribe": {"user": "ann", "room": "chat:x"}},
        {"refresh": {"user": "ann", "expired": True}},
        {"revoke": {"jti": "t1"}},
    ]
    results = (await post(api, "batch", {"commands": commands}))["results"]
    assert [result["error"]["code"] for result in results[:3]] == [102, 107, 107]
    assert [next(iter(result)) for result in results[3:]] == [
        *("publish", "broadcast", "send_to_user", "disconnect", "unsubscribe", "refresh", "revoke")
    ]


async def test_a_batch_reads_too(api: httpx.AsyncClient) -> None:
    """What it has published before is there."""
    commands = [
        {"publish": {"room": "kept:x", "data": 1}},
        {"history": {"room": "kept:x"}},
        {"presence": {"room": "hall:x"}},
        {"history": {"room": "chat:x"}},
        {"history": {"room": "kept:x", "limit": -1}},
    ]
    assert code(await post(api, "batch", {"commands": commands}, status=400)) == 107
    published, kept, present, refused = (await post(api, "batch", {"commands": commands[:-1]}))["results"]
    assert kept["history"] == published["publish"] | {"publications": [{"offset": 1, "data": 1}]}
    assert present == {"presence": {"sessions": 0, "users": 0, "members": []}}
    assert code(refused) == 108


async def test_a_batch_does_not_read_without_end(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand pages of half an outbox are 128 MB."""
    await post(api, "publish", {"room": "kept:x", "data": "x" * 600})
    monkeypatch.setattr(calls, "BATCH_READS", 1000)
    commands = [{"history": {"room": "kept:x"}}] * 3 + [{"publish": {"room": "kept:x", "data": 1}}]
    results = (await post(api, "batch", {"commands": commands}))["results"]
    assert [next(iter(result)) for result in results] == ["history", "history", "error", "publish"]
    assert (code(results[2]), results[2]["error"]["temporary"]) == (106, False)


async def test_what_did_not_fit_into_the_time_of_a_call_says_so(
    api: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand steps of `broker_timeout` each would hold the call for more than an hour."""
    monkeypatch.setattr(calls, "CALL_TIMEOUT", 0.0)
    publishing = {"room": "chat:x", "data": 1}
    results = (await post(api, "batch", {"commands": [{"publish": publishing}] * 2}))["results"]
    results += (await post(api, "broadcast", {"rooms": ["chat:x"], "data": 1}))["results"]
    assert [(code(result), result["error"]["temporary"]) for result in results] == [(100, True)] * 3
    assert {result["error"]["reason"] for result in results} == {"not tried: the call took too long"}
    assert app.state.gateway.counters.published == {}
    assert app.state.gateway.counters.errors == {100: 3}


@pytest.mark.parametrize(
    "tags", [{"t": 1}, {"": "x"}, {"t" * 65: "x"}, {"t": "x" * 257}, dict.fromkeys(map(str, range(17)), "x")]
)
async def test_tags_are_few_and_small(api: httpx.AsyncClient, tags: Any) -> None:
    assert code(await post(api, "publish", {"room": "chat:x", "data": 1, "tags": tags}, status=400)) == 107


async def test_without_configured_keys_the_api_is_off() -> None:
    transport = httpx.ASGITransport(app=create_app(load(internal_port=0, api_keys="")))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as api:
        for key in ("", "x"):
            answer = await post(api, "publish", {"room": "chat:x", "data": 1}, 403, headers={"X-API-Key": key})
            assert (code(answer), "CARILLON_API_KEYS" in answer["error"]["reason"]) == (103, True)


async def test_every_configured_key_is_good(api: httpx.AsyncClient) -> None:
    for key in ("another-key-of-the-tests", KEY):
        await post(api, "publish", {"room": "chat:x", "data": 1}, headers={"X-API-Key": key})


async def test_a_ticket_whose_rights_end_sooner_ends_with_them(api: httpx.AsyncClient) -> None:
    assert (await post(api, "tickets", {"user": "ann", "ttl": 5}))["expires_in"] == 5


@pytest.mark.parametrize("path", ["presence", "history"])
async def test_what_is_not_available_says_so(api: httpx.AsyncClient, path: str) -> None:
    assert code(await post(api, path, {"room": "chat:x"}, status=404)) == 108
    assert code(await post(api, path, {"room": "nobody:x"}, status=404)) == 102


async def test_history_answers_a_page(api: httpx.AsyncClient) -> None:
    room = "kept:lobby"
    assert (await post(api, "history", {"room": room}))["publications"] == []
    for number in range(1, 5):
        last = await post(api, "publish", {"room": room, "data": {"n": number}, "tags": {"t": "x"}})
    page = await post(api, "history", {"room": room, "limit": 2})
    assert page == last | {"publications": [{"offset": n, "data": {"n": n}, "tags": {"t": "x"}} for n in (2, 3)]}
    since = {"epoch": last["epoch"], "offset": 3}
    for fields, expected in ({}, [4]), ({"reverse": True}, [2]), ({"limit": 0}, []):
        page = await post(api, "history", {"room": room, "since": since, **fields})
        assert [publication["offset"] for publication in page["publications"]] == expected


async def test_a_history_that_cannot_be_read_says_why(api: httpx.AsyncClient) -> None:
    for number in range(4):
        last = await post(api, "publish", {"room": "kept:lobby", "data": number})

    async def since(offset: int, status: int, epoch: str = last["epoch"]) -> int:
        wanted = {"room": "kept:lobby", "since": {"epoch": epoch, "offset": offset}}
        return code(await post(api, "history", wanted, status))

    assert await since(4, 409, "another") == 112
    assert await since(5, 409) == 112
    assert await since(0, 409) == 112
    assert await since(-1, 400) == 107
    assert await since(2**53 + 1, 400) == 107
    assert code(await post(api, "history", {"room": "chat:x"}, status=404)) == 108
    no_history = {"room": "chat:x", "since": {"epoch": "e", "offset": 1}}
    assert code(await post(api, "history", no_history, status=404)) == 108
    assert code(await post(api, "history", {"room": "nobody:x"}, status=404)) == 102
    assert code(await post(api, "history", {"room": "kept:x", "limit": -1}, status=400)) == 107


async def test_presence_answers_who_is_in_a_room(api: httpx.AsyncClient, app: FastAPI) -> None:
    assert await post(api, "presence", {"room": "hall:x"}) == {"sessions": 0, "users": 0, "members": []}
    here = Presence(ttl=60, leave_delay=None, batch=1)
    came = [Member("ann", "s1"), Member("ann", "s2")]
    await app.state.gateway.broker.attend("hall:x", here, came=came)
    found = await post(api, "presence", {"room": "hall:x", "limit": 1})
    assert found == {"sessions": 2, "users": 1, "members": [{"user": "ann", "session": "s1"}]}
    assert code(await post(api, "presence", {"room": "hall:x", "limit": -1}, status=400)) == 107


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"rooms": []}, True),
        ({"expires_at": None, "publish": ["*"]}, True),
        ({"expired": True, "session": "s"}, True),
        ({}, False),
        ({"expired": False}, False),
        ({"expired": True, "rooms": []}, False),
        ({"token": "x", "rooms": []}, False),
        ({"token": ""}, False),
        ({"token": "x"}, False),
        ({"expires_at": -1}, False),
    ],
)
async def test_a_refresh_says_exactly_one_thing(api: httpx.AsyncClient, fields: dict[str, Any], good: bool) -> None:
    answer = await post(api, "refresh", {"user": "ann", **fields}, 200 if good else 400)
    assert good or code(answer) == 107


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"jti": "t1"}, True),
        ({"user": "ann"}, True),
        ({"user": "ann", "issued_before": 5, "expires_at": 1e11}, True),
        ({}, False),
        ({"jti": "t1", "user": "ann"}, False),
        ({"jti": "t1", "issued_before": 5}, False),
        ({"jti": ""}, False),
    ],
)
async def test_a_revocation_is_about_one_token_or_one_user(
    api: httpx.AsyncClient, body: dict[str, Any], good: bool
) -> None:
    answer = await post(api, "revoke", body, 200 if good else 400)
    assert good or code(answer) == 107


async def test_a_ticket_is_good_once(api: httpx.AsyncClient, app: FastAPI) -> None:
    issued = await post(api, "tickets", {"user": "ann", "rooms": ["chat:*"], "ttl": 60})
    assert issued["expires_in"] == 60
    claims = await app.state.gateway.tickets.redeem(issued["ticket"])
    assert (claims.user, claims.rooms, claims.publish) == ("ann", ("chat:*",), ())
    assert await app.state.gateway.tickets.redeem(issued["ticket"]) is None


async def test_rooms_asks_every_node(api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/rooms")).json() == {"rooms": [], "nodes": 1}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
async def test_the_examples_of_the_documentation_are_understood(api: httpx.AsyncClient, name: str) -> None:
    document = (await api.get("/openapi.json")).json()
    path = next(
        path
        for path, item in document["paths"].items()
        if item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        == {"$ref": f"#/components/schemas/{name}"}
    )
    answer = await api.post(path, json=EXAMPLES[name])
    assert answer.status_code == 200 or code(answer.json()) == 108, answer.text


async def test_requests_are_counted_by_route_never_by_path(api: httpx.AsyncClient) -> None:
    await api.post("/api/publish", json={})
    await api.get("/api/secret-of-a-client")
    text = (await api.get("/metrics")).text
    assert 'carillon_http_requests_total{route="/api/publish",status="400"}' in text
    assert "secret-of-a-client" not in text


async def test_without_a_gunicorn_master_nothing_is_ended(api: httpx.AsyncClient) -> None:
    assert code((await api.post("/api/drain")).json()) == 108
