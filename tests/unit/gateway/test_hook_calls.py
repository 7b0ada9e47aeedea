"""What a node does with its user's hooks: what they may say, and whom their failures hurt."""

import asyncio
import contextvars
import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from app import codes, hooks
from app.auth.tokens import sign
from app.codes import CommandError, Disconnect
from app.gateway import hook_calls
from app.gateway.client import Client
from app.gateway.hook_calls import ARGUMENTS, BadHooks, HookCalls
from app.gateway.publishing import Publishing
from app.telemetry import logs
from app.testing import CommandFailed, ConnectionClosed, TestGateway
from tests.support.waiting import until

BY_HOOK = {"chat": {"subscribe": "hook", "publish": "hook"}}


def hooking(**named: Any) -> object:
    """Hooks as a module would define them."""
    return SimpleNamespace(**named)


# -- what is shipped, and what is refused at start


def test_the_shipped_module_defines_no_hook() -> None:
    assert not [name for name in ARGUMENTS if hasattr(hooks, name)]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (hooking(on_message=lambda client: None), "on_message: there is no such hook"),
        (hooking(on_connect=lambda client: None), "on_connect: must be `async def`"),
    ],
    ids=["unknown", "not async"],
)
def test_hooks_that_cannot_be_meant_are_refused_at_start(source: object, reason: str) -> None:
    with pytest.raises(BadHooks, match=reason):
        HookCalls(source, 1)


def test_a_hook_has_to_take_what_it_is_called_with() -> None:
    async def on_subscribe(client: Client) -> None: ...

    with pytest.raises(BadHooks, match=r"on_subscribe: is called with \(client, room\)"):
        HookCalls(hooking(on_subscribe=on_subscribe), 1)


def test_a_parameter_that_nobody_fills_in_is_refused_at_start() -> None:
    async def on_connect(client: Client, db: str) -> None: ...

    with pytest.raises(BadHooks, match="on_connect: its parameter 'db' needs Annotated"):
        TestGateway(hooking(on_connect=on_connect))


async def test_methods_of_an_object_are_hooks_too() -> None:
    class Hooks:
        async def on_rpc(self, client: Client, method: str, data: Any) -> Any:
            return [method, data]

    async with TestGateway(Hooks()) as node:
        assert await (await node.connect()).rpc("m", 1) == ["m", 1]


# -- the client


async def test_a_hook_sees_who_it_is_about() -> None:
    seen: dict[str, Any] = {}

    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        seen.update(
            user=client.user, session=client.session, address=client.address, rooms=client.rooms, gateway=client.gateway
        )
        client.state["calls"] = client.state.get("calls", 0) + 1
        return client.state["calls"]

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann = await node.connect("ann", address="192.0.2.7")
        bob = await node.connect("bob")
        await ann.subscribe("chat:x")
        assert [await ann.rpc("count"), await ann.rpc("count"), await bob.rpc("count")] == [1, 2, 1]
        await ann.rpc("count")
        assert seen == {
            "user": "ann",
            "session": ann.session,
            "address": "192.0.2.7",
            "rooms": ("chat:x",),
            "gateway": node.gateway,
        }


async def test_the_client_of_one_connection_is_the_same_in_every_hook() -> None:
    online: set[Client] = set()

    async def on_connect(client: Client) -> None:
        online.add(client)

    async def on_disconnect(client: Client, code: int) -> None:
        online.remove(client)

    async with TestGateway(hooking(on_connect=on_connect, on_disconnect=on_disconnect)) as node:
        ann = await node.connect("ann")
        await node.connect("bob")
        await ann.close()
        await until(lambda: len(online) == 1, "ann is gone")
        assert [client.user for client in online] == ["bob"]


async def test_a_hook_sends_to_its_own_client() -> None:
    async def on_connect(client: Client) -> None:
        await client.send({"hello": client.user})

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        ann = await node.connect("ann")
        message = await ann.receive()
        assert (message.room, message.data) == ("#ann", {"hello": "ann"})


async def test_a_hook_ends_its_own_client() -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> None:
        await client.disconnect(reason="enough")

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        with pytest.raises(ConnectionClosed, match="3503 enough"):
            await ann.rpc("x")
        await bob.ping()


# -- on_connect


async def test_on_connect_refuses_with_false() -> None:
    async def on_connect(client: Client) -> bool:
        return client.user != "mallory"

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        await node.connect("ann")
        with pytest.raises(ConnectionClosed, match="3507 permission denied"):
            await node.connect("mallory")


async def test_on_connect_gives_the_exact_close() -> None:
    async def on_connect(client: Client) -> None:
        raise Disconnect(codes.FORCE_RECONNECT, "elsewhere")

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        with pytest.raises(ConnectionClosed, match="3011 elsewhere"):
            await node.connect()


async def test_on_connect_gives_the_exact_error_and_the_client_may_try_again() -> None:
    attempts: list[str] = []

    async def on_connect(client: Client) -> None:
        attempts.append(client.user)
        if len(attempts) == 1:
            raise CommandError(codes.TOO_MANY_REQUESTS)

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        ann = await node.open()
        token = sign(node.settings, "ann", "*")
        with pytest.raises(CommandFailed, match="auth: error 111"):
            await ann.auth(token)
        with pytest.raises(CommandFailed, match="error 101"):
            await ann.subscribe("chat:x")
        assert (await ann.auth(token))["user"] == "ann"


async def test_an_on_connect_that_fails_sends_its_client_away_to_come_back() -> None:
    async def on_connect(client: Client) -> None:
        raise RuntimeError

    async with TestGateway(hooking(on_connect=on_connect)) as node:
        with pytest.raises(ConnectionClosed, match="3004 on_connect failed"):
            await node.connect()


# -- on_subscribe


async def test_on_subscribe_refuses_anywhere_and_allows_where_the_namespace_asks_for_it() -> None:
    answers: dict[str, Any] = {"chat:yes": True, "chat:none": None, "chat:no": False, "chat:one": 1, "no": False}

    async def on_subscribe(client: Client, room: str) -> bool | None:
        answer: bool | None = answers[room]
        return answer

    async with TestGateway(hooking(on_subscribe=on_subscribe), namespaces=BY_HOOK) as node:
        ann = await node.connect(rooms=["no"])
        await ann.subscribe("chat:yes")
        for room in ("chat:none", "chat:no", "chat:one", "no"):
            with pytest.raises(CommandFailed, match="subscribe: error 103"):
                await ann.subscribe(room)


async def test_without_the_hook_a_namespace_that_asks_for_it_lets_nobody_in() -> None:
    async with TestGateway(namespaces=BY_HOOK) as node:
        ann = await node.connect()
        with pytest.raises(CommandFailed, match="subscribe: error 103"):
            await ann.subscribe("chat:x")
        with pytest.raises(CommandFailed, match="publish: error 103"):
            await ann.publish("chat:x", 1)


# -- on_publish


async def publishing(change: Any, data: Any = 1, **settings: Any) -> Any:
    """What a member receives of `data` after the hook `change`."""

    async def on_publish(client: Client, publication: Publishing) -> bool | None:
        changed: bool | None = change(publication)
        return changed

    async with TestGateway(hooking(on_publish=on_publish), **settings) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        await bob.subscribe("chat:x")
        await ann.publish("chat:x", data)
        return await bob.receive()


async def test_on_publish_replaces_data_and_adds_tags() -> None:
    def change(publication: Publishing) -> None:
        publication.data = {"n": publication.data + 1}
        publication.tags["checked"] = "yes"

    message = await publishing(change)
    assert (message.data, message.tags) == ({"n": 2}, {"checked": "yes"})


async def test_on_publish_changes_data_in_place() -> None:
    def change(publication: Publishing) -> None:
        publication.data["text"] = publication.data["text"].strip()

    assert (await publishing(change, {"text": " x "})).data == {"text": "x"}


def test_data_that_the_hook_did_not_look_at_stays_as_it_was() -> None:
    publication = Publishing("chat:x", b'{ "a":1e2 }')
    publication.seal(0)
    assert publication.json == b'{ "a":1e2 }'


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda publication: False, "error 103"),
        (lambda publication: setattr(publication, "data", "x" * 200), "error 106, data is larger than 100 bytes"),
        (lambda publication: setattr(publication, "data", object()), "error 100, on_publish failed"),
        (lambda publication: setattr(publication, "data", "\ud800"), "error 100, on_publish failed"),
        (lambda publication: setattr(publication, "tags", {"a": 1}), "error 100, on_publish failed"),
        (lambda publication: setattr(publication, "tags", {"a": "\ud800"}), "error 100, on_publish failed"),
    ],
    ids=["refused", "too large", "not JSON", "lone surrogate", "tag is no text", "tag with lone surrogate"],
)
async def test_what_on_publish_leaves_is_checked_again(change: Any, error: str) -> None:
    with pytest.raises(CommandFailed, match=error):
        await publishing(change, namespaces={"chat": {"max_publication_bytes": 100}})


# -- on_rpc


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_rpc_carries_any_json_value_both_ways(msgpack: bool) -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        return {method: data}

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann = await node.connect(msgpack=msgpack)
        for value in (None, 1.5, "é", [True, {"a": []}]):
            assert await ann.rpc("echo", value) == {"echo": value}


async def test_without_the_hook_there_is_no_rpc() -> None:
    async with TestGateway() as node:
        with pytest.raises(CommandFailed, match="rpc: error 104, method not found"):
            await (await node.connect()).rpc("x")


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [object(), 2**70, "\ud800", {1j: 1}, endless()],
    ids=["object", "huge number", "lone surrogate", "complex key", "endless"],
)
@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_a_result_that_is_no_json_hurts_only_its_own_client(value: Any, msgpack: bool) -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        return value

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann, bob = await node.connect("ann", msgpack=msgpack), await node.connect("bob")
        with pytest.raises(CommandFailed, match="error 100, on_rpc failed"):
            await ann.rpc("x")
        await ann.ping()
        await bob.ping()


# -- failures


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


async def fail() -> None:
    raise KeyError("details that no client should read")


async def leave() -> None:
    sys.exit(1)


async def let_a_cancellation_out() -> None:
    task = asyncio.ensure_future(hang())
    task.cancel()
    await task


async def run_out_of_time() -> None:
    raise TimeoutError("of its own")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (hang, "took too long"),
        (fail, "failed"),
        (leave, "failed"),
        (let_a_cancellation_out, "failed"),
        (run_out_of_time, "failed"),
    ],
)
@pytest.mark.parametrize("name", ["on_subscribe", "on_publish", "on_rpc"])
async def test_a_hook_in_trouble_hurts_only_its_own_client(trouble: Any, reason: str, name: str) -> None:
    async def hook(client: Client, *_: Any) -> None:
        if client.user == "ann":
            await trouble()

    async with TestGateway(hooking(**{name: hook}), hook_timeout=0.05) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        command, fields = {
            "on_subscribe": ("subscribe", {"room": "chat:x"}),
            "on_publish": ("publish", {"room": "chat:x", "data": 1}),
            "on_rpc": ("rpc", {"method": "x"}),
        }[name]
        failing = asyncio.ensure_future(ann.command(command, **fields))
        await bob.command(command, **fields)
        with pytest.raises(CommandFailed, match=f"error 100, {name} {reason}") as failed:
            await failing
        assert failed.value.temporary
        await ann.ping()


async def test_a_hook_gives_the_exact_error_or_close() -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> None:
        if method == "error":
            raise CommandError(codes.NOT_AVAILABLE, "on Sundays")
        raise Disconnect(codes.NOT_SUPPORTED, "never")

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann = await node.connect()
        with pytest.raises(CommandFailed, match="error 108, on Sundays"):
            await ann.rpc("error")
        with pytest.raises(ConnectionClosed, match="3508 never"):
            await ann.rpc("close")


# -- on_disconnect (H3)


@pytest.fixture
def left() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def remembering(left: list[tuple[str, int]]) -> object:
    async def on_connect(client: Client) -> bool:
        return client.user != "mallory"

    async def on_disconnect(client: Client, code: int) -> None:
        await asyncio.sleep(0)
        left.append((client.user, code))

    return hooking(on_connect=on_connect, on_disconnect=on_disconnect)


async def test_on_disconnect_runs_once_whoever_ended_it(left: list[tuple[str, int]], remembering: object) -> None:
    async with TestGateway(remembering) as node:
        ann, bob, eve = [await node.connect(user) for user in ("ann", "bob", "eve")]
        await ann.close(1001)
        await node.gateway.disconnect("bob")
        await bob.closed()
        eve.send(b"\xff")
        await eve.close()
        await until(lambda: len(left) == 3, "three farewells")
    assert sorted(left) == [("ann", 1001), ("bob", 3503), ("eve", 1000)]


async def test_on_disconnect_is_not_for_those_who_were_not_let_in(
    left: list[tuple[str, int]], remembering: object
) -> None:
    async with TestGateway(remembering) as node:
        await (await node.open()).close()
        with pytest.raises(ConnectionClosed):
            await node.connect("mallory")
    assert left == []


async def test_on_disconnect_comes_after_the_command_under_way(left: list[tuple[str, int]]) -> None:
    goes_on = asyncio.Event()

    async def on_rpc(client: Client, method: str, data: Any) -> None:
        await goes_on.wait()
        left.append((client.user, 0))

    async def on_disconnect(client: Client, code: int) -> None:
        left.append((client.user, code))

    async with TestGateway(hooking(on_rpc=on_rpc, on_disconnect=on_disconnect)) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        ann.send(b'{"type": "rpc", "method": "x"}')
        await ann.close()
        await bob.close()
        await until(lambda: left, "bob's farewell")
        assert left == [("bob", 1000)]
        goes_on.set()
        await until(lambda: len(left) == 3, "ann's farewell")
    assert left[1:] == [("ann", 0), ("ann", 1000)]


async def test_the_drain_waits_for_on_disconnect(left: list[tuple[str, int]]) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def on_disconnect(client: Client, code: int) -> None:
        begun.set()
        await goes_on.wait()
        left.append((client.user, code))

    async with TestGateway(hooking(on_disconnect=on_disconnect)) as node:
        await node.connect("ann")
        drain = asyncio.ensure_future(node.gateway.drain(5))
        await begun.wait()
        assert len(node.gateway.registry) == 0
        done, _ = await asyncio.wait((drain,), timeout=0.1)
        assert not done
        goes_on.set()
        await drain
        assert left == [("ann", 3001)]


async def test_the_drain_does_not_wait_for_ever() -> None:
    async def on_disconnect(client: Client, code: int) -> None:
        await hang()

    async with TestGateway(hooking(on_disconnect=on_disconnect), hook_timeout=40) as node:
        await node.connect("ann")
        began = node.gateway.now()
        await node.gateway.drain(0.1)
        assert 0.1 <= node.gateway.now() - began < 10


async def test_the_end_of_the_node_is_the_end_of_its_sessions(left: list[tuple[str, int]], remembering: object) -> None:
    async with TestGateway(remembering) as node:
        await node.connect("ann")
    assert left == [("ann", 3001)]


async def test_the_end_of_the_node_does_not_wait_for_a_client_that_does_not_read(
    left: list[tuple[str, int]], remembering: object
) -> None:
    async with TestGateway(remembering) as node:
        ann = await node.connect("ann")
        await ann.subscribe("chat:x")
        ann.stall()
        await node.gateway.publish("chat:x", 1)
        await until(lambda: node.gateway.slow, "an outbox")
    assert left == [("ann", 3001)]


# -- two users at once (H1)


who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, dict)
        self.events.append(record.msg)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The log lines of hooks, as structured events; what other tests logged within this second does not matter."""
    logs.configure_structlog()
    monkeypatch.setattr(hook_calls, "log", logs.Limited(logs.get("hooks")))
    handler, logger = Lines(), logging.getLogger("carillon.hooks")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.events
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_two_users_interleaved_never_mix(lines: list[dict[str, Any]]) -> None:
    meeting = asyncio.Barrier(2)

    async def on_connect(client: Client) -> None:
        assert who.get() == "nobody"
        who.set(client.user)

    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        before = who.get()
        who.set(client.user)
        await meeting.wait()
        client.log.info("called", inner=who.get(), round=data)
        await meeting.wait()
        return [before, who.get(), client.user]

    async with TestGateway(hooking(on_connect=on_connect, on_rpc=on_rpc)) as node:
        ann, bob = await node.connect("ann"), await node.connect("bob")
        for number in range(20):
            replies = await asyncio.gather(ann.rpc("x", number), bob.rpc("x", number))
            assert replies == [["nobody", "ann", "ann"], ["nobody", "bob", "bob"]]
        assert who.get() == "nobody"
    assert len(lines) == 40
    sessions = {"ann": ann.session, "bob": bob.session}
    for line in lines:
        assert line["inner"] == line["user"]
        assert line["session"] == sessions[line["user"]]


async def test_a_failure_is_logged_with_whose_it_was_and_told_to_nobody(lines: list[dict[str, Any]]) -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> None:
        await fail()

    async with TestGateway(hooking(on_rpc=on_rpc)) as node:
        ann = await node.connect("ann")
        with pytest.raises(CommandFailed, match=r"error 100, on_rpc failed$"):
            await ann.rpc("x")
    [line] = lines
    assert (line["event"], line["hook"], line["user"], line["session"]) == (
        "hook.failed",
        "on_rpc",
        "ann",
        ann.session,
    )
    assert "details that no client should read" in line["exception"]
