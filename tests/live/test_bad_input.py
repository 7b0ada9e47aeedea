"""Half-done things, garbage and bombs, against the real worker: an answer in time, a bounded memory, nobody harmed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload
from tests.support.bystander import Bystander
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.scrape import sample
from tests.support.stack import Stack, StackFactory
from tests.support.waiting import wait_until

HALF_OPEN = 200  # settings of this stack
TIMEOUT = 0.5  # seconds, also of a message

GROWTH = 30_000_000  # bytes: what a worker may take for one test here, and the allocator keep


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {
        "CARILLON_HEAD_TIMEOUT": str(TIMEOUT),
        "CARILLON_MAX_HALF_OPEN": str(HALF_OPEN),
        "CARILLON_MESSAGE_TIMEOUT": str(TIMEOUT),
        "CARILLON_PING_INTERVAL": "0",  # so that no heartbeat ends what another bound has to
    }
    with Stack(tmp_path_factory.mktemp("bad-input"), pods=1, workers=1, nginx=False, env=env) as shared:
        yield shared


@pytest.fixture(autouse=True)
def bystander(stack: Stack) -> Iterator[Bystander]:
    """Nobody else is harmed, memory stays, nothing is logged."""
    logged, before = stack.log("pod-1"), resident(stack)
    with Bystander(stack) as member:
        yield member
        member.hears()
    assert resident(stack) - before < GROWTH
    lines = [json.loads(line) for line in stack.log("pod-1")[len(logged) :].splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []


@pytest.fixture
def raw(stack: Stack) -> Iterator[RawWebSocket]:
    with RawWebSocket(stack.port) as client:
        yield client


@pytest.fixture
def ann(stack: Stack, raw: RawWebSocket) -> RawWebSocket:
    return enter(stack, raw)


def enter(stack: Stack, raw: RawWebSocket, *lines: str) -> RawWebSocket:
    """Upgrades with credentials, and reads `welcome`."""
    raw.upgrade(f"Authorization: Bearer {stack.token('ann')}", *lines).frame()
    return raw


def resident(stack: Stack) -> int:
    return int(Path(f"/proc/{stack.worker_pids()[0]}/statm").read_text().split()[1]) * 4096


def limit_hits(stack: Stack, limit: str) -> float:
    return sample(stack, "carillon_limit_hits_total", limit=limit)


def sockets(stack: Stack) -> int:
    """Of the public port, as the kernel knows them, but for listeners and those that only wait for stray packets."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listens, time_wait = "0A", "06"
    return sum(int(row[1].split(":")[1], 16) == stack.port and row[3] not in (listens, time_wait) for row in rows)


class TestHeads:
    def test_that_come_byte_by_byte(self, stack: Stack, bystander: Bystander) -> None:
        head = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nX-Slow: " + b"a" * 10_000
        clients = [RawWebSocket(stack.port) for _ in range(50)]
        before = limit_hits(stack, "head_timeout")
        for position in range(len(head)):
            if limit_hits(stack, "head_timeout") - before == len(clients):
                break
            for client in clients:
                client.send_if_open(head[position : position + 1])
            bystander.hears()
        for client in clients:
            assert client.status() == 408
            client.close()

    def test_that_never_come(self, stack: Stack, bystander: Bystander) -> None:
        half_open(stack, bystander, HALF_OPEN)


@pytest.mark.long
def test_ten_thousand_heads_that_never_come(make_stack: StackFactory) -> None:
    """The default bound."""
    stack = make_stack(pods=1, workers=1, nginx=False)
    with Bystander(stack) as bystander:
        before = resident(stack)
        half_open(stack, bystander, 10_000)
        print(f"10,000 half-open connections took {(resident(stack) - before) / 10_000:.0f} bytes each")
        assert resident(stack) - before < 150_000_000


def half_open(stack: Stack, bystander: Bystander, bound: int) -> None:
    """So many connections that say nothing; those above the bound are told so, and when they are gone all is well."""
    refused = limit_hits(stack, "max_half_open")
    silent = [RawWebSocket(stack.port) for _ in range(bound)]
    with RawWebSocket(stack.port) as late:
        assert late.status() == 503
        assert "retry-after: " in late.head
    wait_until(lambda: limit_hits(stack, "max_half_open") > refused, "it is counted")
    assert bystander.hears() < 1
    assert all(client.gone() for client in silent), "head_timeout ends them"
    for client in silent:
        client.close()
    with RawWebSocket(stack.port) as new:
        new.upgrade()


#: How messages begin that never end.
HALVES = {
    "one byte of a head": b"\x81",
    "half a length": b"\x81\xfe\x01",
    "half a payload": client_frame(TEXT, b"x" * 60_000)[:30_000],
    "a fragment": client_frame(TEXT, b"{", final=False),
    "half a ping in it": client_frame(TEXT, b"{", final=False) + client_frame(PING, b"")[:1],
}

#: How they begin, and what comes then, again and again.
DRIPS = {
    "byte by byte": (client_frame(TEXT, b"x" * 60_000)[:8], b"x"),
    "fragment by fragment": (client_frame(TEXT, b"", final=False), client_frame(CONTINUATION, b"", final=False)),
    "with pings in between": (client_frame(TEXT, b"", final=False), client_frame(PING, b"")),
}


class TestHalfDoneMessages:
    def test_end_after_message_timeout(self, stack: Stack) -> None:
        before = limit_hits(stack, "message_timeout")
        clients = {name: enter(stack, RawWebSocket(stack.port)) for name in HALVES}
        for name, client in clients.items():
            client.send(client_frame(TEXT, b'{"type":"ping"}') + HALVES[name])
            assert client.frame() == (TEXT, b'{"type":"pong"}')
        assert {name: client.close_code() for name, client in clients.items()} == dict.fromkeys(HALVES, 1008)
        for client in clients.values():
            assert client.gone()
            client.close()
        wait_until(lambda: limit_hits(stack, "message_timeout") - before == len(HALVES), "each is counted")

    def test_that_go_on_too_slowly_end_too(self, stack: Stack, bystander: Bystander) -> None:
        before = limit_hits(stack, "message_timeout")
        clients = {name: enter(stack, RawWebSocket(stack.port)) for name in DRIPS}
        for name, client in clients.items():
            client.send(DRIPS[name][0])
        while limit_hits(stack, "message_timeout") - before < len(DRIPS):
            for name, client in clients.items():
                client.send_if_open(DRIPS[name][1])
            bystander.hears()
        for client in clients.values():
            assert client.close_code() == 1008
            client.close()

    def test_each_message_has_its_own_time(self, stack: Stack, bystander: Bystander, ann: RawWebSocket) -> None:
        """What is always in the midst of one, but finishes them, is well for longer than the timeout."""
        first, rest = (frame := client_frame(TEXT, b'{"type":"ping"}'))[:9], frame[9:]
        ann.send(first)
        heard = 0.0
        while heard < 1.5 * TIMEOUT:
            ann.send(rest + first)
            assert ann.frame() == (TEXT, b'{"type":"pong"}')
            heard += bystander.hears() + bystander.hears()


class TestCloses:
    def test_of_those_who_do_not_read_or_do_not_answer_are_bounded(self, stack: Stack) -> None:
        wait_until(lambda: sockets(stack) == 1, "only the bystander is connected")
        clients = [enter(stack, RawWebSocket(stack.port, receive_buffer=4096)) for _ in range(4)]
        closes, half_closes, violates, is_silent = clients
        for client in (closes, half_closes, violates):
            client.say('{"type": "subscribe", "room": "chat:closes"}')
            client.frame()
        for _ in range(60):  # 240 KB: what is sent to them fills all buffers on the way
            stack.publish("chat:closes", "x" * 4000)
        closes.send(client_frame(CLOSE, close_payload(1000, "")))
        half_closes.finish_sending()
        violates.send(client_frame(CONTINUATION, b""))
        is_silent.send(client_frame(BINARY, b""))  # told goodbye, and 1003
        assert sockets(stack) == 1 + len(clients)
        wait_until(lambda: sockets(stack) == 1, "CLOSE_TIMEOUT ends them")
        for client in clients:
            client.close()

    def test_a_peer_that_half_closes_is_gone(self, stack: Stack, ann: RawWebSocket) -> None:
        ann.finish_sending()
        assert ann.gone()

    def test_a_violation_right_behind_the_upgrade_leaves_nothing(self, stack: Stack, raw: RawWebSocket) -> None:
        """It comes before there is a session, which is told at once and never joins the room of its path."""
        raw.upgrade(
            f"Authorization: Bearer {stack.token('ann')}", path="/ws/chat:early", after=client_frame(CONTINUATION, b"")
        )
        assert raw.close_code() == 1002
        assert raw.gone()
        wait_until(lambda: sample(stack, "carillon_connections") == 1, "only the bystander is connected")
        assert sample(stack, "carillon_subscriptions") == 1

    def test_what_comes_after_a_violation_does_not_take_its_code_away(self, ann: RawWebSocket) -> None:
        ann.send(client_frame(TEXT, b"x" * 3_000_000))
        assert ann.close_code() == 1009
        assert ann.gone()


#: A TLS 1.2 ClientHello, its beginning.
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32)) + b"\x20" + bytes(150)

UPGRADE = (
    b"Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class TestGarbageForHttp:
    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"\x00\x01\x02\x03" * 20, 400),
            (b"hello, is this the right place?\r\n\r\n", 400),
            (CLIENT_HELLO, 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET /ws HTTP/9.9\r\n" + UPGRADE + b"\r\n", 400),
            (b"GET /ws HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 431),
            (b"GET /ws HTTP/1.1\r\nA: " + b"b" * 100_000, 431),
            (b"GET /ws HTTP/1.1\r\nA\x00b: c\r\n\r\n", 400),
            (b"GET /ws HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET /ws\xff\xfe HTTP/1.1\r\n" + UPGRADE + b"\r\n", 400),
            (b"GET /ws/%ff%fe HTTP/1.1\r\n" + UPGRADE + b"\r\n", 101),
            (b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"Origin: \xff\xfe\r\n\r\n", 403),
            (b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"Cookie: \xff=\xfe\r\nX-Forwarded-For: \xff\r\n\r\n", 101),
            (b"GET /ws HTTP/1.1\r\n" + UPGRADE.replace(b"dGhl", b"\xff\xff\xff\xff") + b"\r\n", 400),
            (b"GET /ws HTTP/1.1\r\n" + UPGRADE + b"Host: [::1\r\nOrigin: http://[::1\r\n\r\n", 403),
            (b"GET http://[::1/ws HTTP/1.1\r\n" + UPGRADE + b"\r\n", 403),
            (b"CONNECT h:1 HTTP/1.1\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        ],
    )
    def test_is_answered(self, raw: RawWebSocket, data: bytes, status: int) -> None:
        raw.send(data)
        assert raw.status() == status


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def publish_of(data: bytes) -> bytes:
    return b'{"type": "publish", "room": "chat:x", "data": ' + data + b"}"


JSON_BOMBS = {
    "a bracket for each byte": b"[" * 65_000,
    "deep": publish_of(nested(30_000)),
    "deep enough to be refused": publish_of(nested(65)),
    "deep maps": b'{"type":' * 8000,
    "a huge integer": publish_of(b"1" * 60_000),
    "a huge exponent": publish_of(b"1e" + b"9" * 60_000),
    "a huge id": b'{"type": "ping", "id": ' + b"7" * 60_000 + b"}",
    "NaN": publish_of(b"NaN"),
    "Infinity": publish_of(b"-Infinity"),
    "half a surrogate": publish_of(b'"\\ud800"'),
    "half a surrogate in a name": b'{"type": "ping", "\\udfff": 1}',
    "a type twice": b'{"type": "ping", "type": "publish"}',
    "a long type": b'{"type": "' + b"x" * 60_000 + b'"}',
    "nothing": b"",
    "no object": b"null",
    "zero bytes": b"\x00" * 1000,
}


def msgpack_publish_of(data: bytes) -> bytes:
    return b"\x83\xa4type\xa7publish\xa4room\xa6chat:x\xa4data" + data


MSGPACK_BOMBS = {
    "an array of 4 billion": msgpack_publish_of(b"\xdd\xff\xff\xff\xff"),
    "a map of 4 billion": msgpack_publish_of(b"\xdf\xff\xff\xff\xff"),
    "a string of 4 GB": msgpack_publish_of(b"\xdb\xff\xff\xff\xff"),
    "binary of 4 GB": msgpack_publish_of(b"\xc6\xff\xff\xff\xff"),
    "an extension of 4 GB": msgpack_publish_of(b"\xc9\xff\xff\xff\xff\x01"),
    "a command of 4 billion fields": b"\xdf\xff\xff\xff\xff",
    "an array as the command": b"\xdd\xff\xff\xff\xff",
    "deep arrays": msgpack_publish_of(b"\x91" * 30_000 + b"\xc0"),
    "deep maps": msgpack_publish_of(b"\x81\xa1k" * 20_000 + b"\xc0"),
    "arrays as keys": msgpack_publish_of(b"\x81" * 30_000),
    "each level claims a million": msgpack_publish_of(b"\xdd\x00\x0f\xff\xff" * 10_000),
    "an extension": msgpack_publish_of(b"\xd4\x01\x00"),
    "a timestamp that cannot be": msgpack_publish_of(b"\xc7\x0c\xff" + b"\xff" * 12),
    "NaN": msgpack_publish_of(b"\xcb\x7f\xf8" + b"\x00" * 6),
    "a string that is not UTF-8": msgpack_publish_of(b"\xa1\xff"),
    "what no format has": msgpack_publish_of(b"\xc1"),
}


class TestBombs:
    @pytest.mark.parametrize("message", JSON_BOMBS.values(), ids=JSON_BOMBS)
    def test_of_json(self, ann: RawWebSocket, message: bytes) -> None:
        ann.send(client_frame(TEXT, message))
        assert error_code(ann, json.loads) == 107
        ann.say('{"type": "ping"}')
        assert ann.frame() == (TEXT, b'{"type":"pong"}')

    @pytest.mark.parametrize("message", MSGPACK_BOMBS.values(), ids=MSGPACK_BOMBS)
    def test_of_msgpack(self, stack: Stack, raw: RawWebSocket, message: bytes) -> None:
        import msgspec

        enter(stack, raw, "Sec-WebSocket-Protocol: carillon.msgpack")
        raw.send(client_frame(BINARY, message))
        assert error_code(raw, msgspec.msgpack.decode) == 107
        raw.send(client_frame(BINARY, b"\x81\xa4type\xa4ping"))
        assert raw.frame() == (BINARY, b"\x81\xa4type\xa4pong")

    def test_above_the_bound_are_not_even_read(self, ann: RawWebSocket) -> None:
        ann.send(client_frame(TEXT, b"[" * 1_000_000))
        assert ann.close_code() == 1009


def error_code(raw: RawWebSocket, decode: Callable[[bytes], Any]) -> int:
    opcode, payload = raw.frame()
    assert opcode not in (CLOSE, PONG)
    event = decode(payload)
    assert event["type"] == "error"
    assert len(payload) < 500, "it does not quote what it was sent at length"
    return int(event["code"])
