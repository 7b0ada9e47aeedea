"""The same application on our protocol, on plain uvicorn and in a test client (invariant 10); and what is left (H4)."""

import asyncio
import gc
import json
from contextvars import ContextVar
from typing import Annotated

import pytest
from fastapi import Depends
from starlette.testclient import TestClient

from app.auth.tokens import sign
from app.gateway.session import QUEUED_COMMANDS, Session
from app.main import create_app
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.settings import Settings, load
from app.wire.frames import TEXT, Frame
from tests.support.client import Client
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.serving import serving
from tests.support.waiting import until

SETTINGS: Settings = load(internal_port=0, token_hmac_secret="a-secret-of-the-tests-that-is-long-enough")
TOKEN = sign(SETTINGS, "ann", ["*"], ["*"])


@pytest.mark.parametrize("websockets", [WebSocketProtocol, "websockets-sansio"])
async def test_a_conversation(websockets: object) -> None:
    app = create_app(SETTINGS)
    async with serving(app, websockets) as url:
        async with Client(url, token=TOKEN) as ann, Client(url, token=TOKEN) as bob:
            await ann.subscribe("chat:x")
            await bob.publish("chat:x", {"n": 1})
            assert await ann.heard("chat:x", 1) == [{"n": 1}]
            await ann.send({"type": "auth", "token": "nonsense"})
            assert await ann.closed() == 3500
            assert ann.events[-1]["type"] == "goodbye"
            await app.state.gateway.disconnect("ann")
            assert await bob.closed() == 3503
        await until(lambda: not app.state.gateway.registry.by_id, "both sessions end")


@pytest.mark.parametrize(("threshold", "agreed"), [(0, False), (1, True)])
async def test_whether_compression_is_agreed_on_is_a_setting(threshold: int, agreed: bool) -> None:
    """H7; zero turns it off both ways."""
    settings = SETTINGS.model_copy(update={"compression_min_bytes": threshold})
    async with (
        serving(create_app(settings), WebSocketProtocol, NodeState(settings)) as url,
        Client(url, token=TOKEN, compression="deflate") as ann,
    ):
        assert ann.compressed is agreed
        await ann.subscribe("chat:x")


@pytest.mark.parametrize("offers", [True, False])
async def test_a_frame_for_one_goes_out_in_the_form_that_was_agreed_on(offers: bool) -> None:
    """As from an outbox: the same bytes that the others get."""
    app = create_app(SETTINGS)
    frame = Frame(b"so long " * 500, text=True, deflate_from=1)
    async with serving(app, WebSocketProtocol) as url:
        with RawWebSocket(int(url.rpartition(":")[2])) as raw:
            extension = ["Sec-WebSocket-Extensions: permessage-deflate"] if offers else []
            await asyncio.to_thread(raw.upgrade, *extension)
            await asyncio.to_thread(raw.frame)
            (session,) = app.state.gateway.registry.by_id.values()
            session.connection.send(frame)
            _, payload = await asyncio.to_thread(raw.frame)
            assert raw.compressed is offers
            assert (frame.deflated if offers else frame.wire).endswith(payload)
            session.connection.send(Frame(frame.payload, text=True))
            assert (await asyncio.to_thread(raw.frame))[1] == frame.payload
            assert not raw.compressed


def test_a_conversation_in_a_test_client() -> None:
    with TestClient(create_app(SETTINGS)) as client, client.websocket_connect("/ws/chat:x") as ann:
        assert ann.receive_json()["type"] == "welcome"
        ann.send_json({"type": "auth", "id": 1, "token": TOKEN})
        assert ann.receive_json()["user"] == "ann"
        assert ann.receive_json()["room"] == "chat:x"
        ann.send_bytes(b"binary")
        assert ann.receive_json()["code"] == 1003
        assert ann.receive()["code"] == 1003


async def test_what_came_early_keeps_to_the_bound_of_commands_that_wait() -> None:
    """H2: reading stays paused over the hand-over while the session has no room."""
    let_in, admitted = asyncio.Event(), asyncio.Event()

    class Hooks:
        @staticmethod
        async def on_connect(client: object, found: Annotated[object, Depends(let_in.wait)]) -> None:
            await admitted.wait()

    app = create_app(SETTINGS, hooks=Hooks)
    async with serving(app, WebSocketProtocol) as url:
        with RawWebSocket(int(url.rpartition(":")[2])) as raw:
            upgrading = asyncio.create_task(asyncio.to_thread(raw.upgrade, f"Authorization: Bearer {TOKEN}"))
            early = b"".join(client_frame(TEXT, b'{"type":"ping","id":%d}' % number) for number in range(40))
            await until(lambda: let_in._waiters, "the dependency is resolved")  # type: ignore[attr-defined]
            raw.send(early)
            let_in.set()
            await upgrading
            (session,) = app.state.gateway.registry.by_id.values()
            await until(lambda: session._queue, "the session has commands that wait")
            assert len(session._queue) == QUEUED_COMMANDS
            admitted.set()
            frames = [json.loads((await asyncio.to_thread(raw.frame))[1]) for _ in range(41)]
            assert [frame["id"] for frame in frames[1:]] == list(range(40))


def left_over() -> list[object]:
    return [thing for thing in gc.get_objects() if type(thing) in (Session, WebSocketProtocol)]


async def test_connections_that_ended_leave_nothing_behind_without_the_collector() -> None:
    """H4: after gc.freeze() a cycle would stay for ever."""
    app = create_app(SETTINGS)
    async with serving(app, WebSocketProtocol) as url:
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                clients = [await Client(url, token=TOKEN).open() for _ in range(20)]
                for number, client in enumerate(clients):
                    await client.subscribe(f"chat:{number % 3}")
                await asyncio.gather(*(client.close() for client in clients))
            await until(lambda: not app.state.gateway.registry.by_id, "all sessions end")
            await until(lambda: not left_over(), "nothing is left")
        finally:
            gc.enable()


async def test_two_users_interleaved_never_mix() -> None:
    """H1: what a hook sets in its context is seen by no other client."""
    who: ContextVar[str] = ContextVar("who", default="nobody")
    mixed: list[tuple[str, str]] = []

    class Hooks:
        @staticmethod
        async def on_publish(client: object, publication: object) -> None:
            user = client.user  # type: ignore[attr-defined]
            if who.get() != "nobody":
                mixed.append((user, who.get()))
            who.set(user)
            await asyncio.sleep(0)
            if who.get() != user:
                mixed.append((user, who.get()))

    async with serving(create_app(SETTINGS, hooks=Hooks), WebSocketProtocol) as url:
        clients = [Client(url, token=sign(SETTINGS, user, ["*"], ["*"])) for user in ("ann", "bob")]
        for client in clients:
            await client.open()
        await asyncio.gather(*(client.publish("chat:x", n) for n in range(25) for client in clients))
        assert mixed == []
        for client in clients:
            await client.close()
