"""What clients do wrong, against the real worker: the documented answer, nothing in the log, nobody else harmed."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from app.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, framed
from tests.support.bystander import Bystander
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.scrape import sample
from tests.support.stack import Stack
from tests.support.waiting import wait_until

WEBSOCKET = ("Upgrade: websocket", "Connection: Upgrade")
VERSION, KEY = "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"CARILLON_PING_INTERVAL": "1", "CARILLON_PONG_TIMEOUT": "0.5", "CARILLON_AUTH_TIMEOUT": "3"}
    with Stack(tmp_path_factory.mktemp("protocol"), pods=1, workers=1, nginx=False, env=env) as shared:
        yield shared


@pytest.fixture
def raw(stack: Stack) -> Iterator[RawWebSocket]:
    with RawWebSocket(stack.port) as client:
        yield client


@pytest.fixture(autouse=True)
def nobody_else_is_harmed_and_nothing_is_logged(stack: Stack) -> Iterator[None]:
    logged = stack.log("pod-1")
    with Bystander(stack) as bystander:
        yield
        bystander.hears()
    lines = [json.loads(line) for line in stack.log("pod-1")[len(logged) :].splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []


class TestHandshake:
    @pytest.mark.parametrize(
        ("lines", "status"),
        [
            ((*WEBSOCKET, VERSION), 400),
            ((*WEBSOCKET, VERSION, "Sec-WebSocket-Key: short"), 400),
            ((*WEBSOCKET, VERSION, KEY, KEY), 400),
            ((*WEBSOCKET, KEY), 426),
            ((*WEBSOCKET, KEY, "Sec-WebSocket-Version: 8"), 426),
            ((*WEBSOCKET, VERSION, KEY, "Origin: https://elsewhere.example"), 403),
            ((), 404),
        ],
    )
    def test_a_bad_upgrade_gets_a_proper_answer(self, raw: RawWebSocket, lines: tuple[str, ...], status: int) -> None:
        assert raw.request(*lines) == status

    def test_an_unknown_path_is_refused(self, raw: RawWebSocket) -> None:
        assert raw.request(*WEBSOCKET, VERSION, KEY, path="/nowhere") in (403, 404)

    def test_an_empty_subprotocol_is_none(self, raw: RawWebSocket) -> None:
        raw.upgrade("Sec-WebSocket-Protocol: ")
        assert "sec-websocket-protocol" not in raw.head

    def test_msgpack_is_chosen_by_subprotocol(self, raw: RawWebSocket) -> None:
        raw.upgrade("Sec-WebSocket-Protocol: other, carillon.msgpack")
        assert "sec-websocket-protocol: carillon.msgpack" in raw.head
        assert raw.frame()[0] == BINARY

    def test_what_comes_in_one_packet_with_the_upgrade_is_not_lost(self, raw: RawWebSocket) -> None:
        raw.upgrade(after=client_frame(TEXT, b'{"type":"ping","id":5}'))
        assert json.loads(raw.frame()[1])["type"] == "welcome"
        assert json.loads(raw.frame()[1]) == {"type": "pong", "id": 5}

    def test_nor_is_what_exceeds_the_bound_of_early_data(self, raw: RawWebSocket) -> None:
        long = [client_frame(TEXT, b'{"type":"ping","id":%d,"padding":"%b"}' % (id, b"x" * 50_000)) for id in range(3)]
        raw.upgrade(after=b"".join(long) + client_frame(TEXT, b'{"type":"ping","id":5}'))
        assert json.loads(raw.frame()[1])["type"] == "welcome"
        assert [json.loads(raw.frame()[1])["id"] for _ in range(4)] == [0, 1, 2, 5]


class TestFraming:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (framed(TEXT, b"{}"), 1002),
            *((client_frame(TEXT, b"{}", reserved=bit), 1002) for bit in (0x40, 0x20, 0x10)),
            *((client_frame(opcode, b""), 1002) for opcode in (3, 7, 0xB, 0xF)),
            (client_frame(CONTINUATION, b""), 1002),
            (client_frame(TEXT, b"a", final=False) + client_frame(TEXT, b"b"), 1002),
            *((client_frame(opcode, b"", final=False), 1002) for opcode in (CLOSE, PING, PONG)),
            *((client_frame(opcode, b"x" * 126), 1002) for opcode in (CLOSE, PING, PONG)),
            (client_frame(CLOSE, b"\x03"), 1002),
            *((client_frame(CLOSE, close_payload(code, "")), 1002) for code in (999, 1005, 1015, 2999, 5000)),
            (client_frame(CLOSE, close_payload(1000, "") + b"\xff"), 1007),
            (client_frame(TEXT, b"\xff"), 1007),
            (client_frame(TEXT, b"\xc3", final=False) + client_frame(CONTINUATION, b"x"), 1007),
            (b"\x82\xff" + (2**62).to_bytes(8, "big"), 1009),
            (client_frame(TEXT, b"x" * 40_000, final=False) + client_frame(CONTINUATION, b"x" * 40_000), 1009),
        ],
    )
    def test_a_broken_rule_ends_the_connection_with_its_code(self, raw: RawWebSocket, data: bytes, code: int) -> None:
        raw.upgrade().send(data)
        assert raw.close_code() == code

    def test_a_violation_is_counted_and_ends_the_connection(self, stack: Stack, raw: RawWebSocket) -> None:
        before = sample(stack, "carillon_connections_closed_total", code="1002")
        raw.upgrade().send(framed(TEXT, b"{}"))
        assert raw.close_code() == 1002
        assert raw.gone()
        wait_until(lambda: sample(stack, "carillon_connections_closed_total", code="1002") > before, "it is counted")

    def test_a_binary_message_on_a_text_session_ends_it_with_goodbye(self, raw: RawWebSocket) -> None:
        raw.upgrade().send(client_frame(BINARY, b"x"))
        raw.frame()
        assert json.loads(raw.frame()[1])["type"] == "goodbye"
        assert raw.close_code() == 1003
        raw.send(client_frame(CLOSE, close_payload(1003, "")))
        assert raw.gone()

    def test_pings_are_answered_between_fragments(self, raw: RawWebSocket) -> None:
        raw.upgrade()
        raw.send(client_frame(TEXT, b'{"type":', final=False) + client_frame(PING, b"now"))
        raw.frame()
        assert raw.frame() == (PONG, b"now")
        raw.send(client_frame(CONTINUATION, b'"ping"}'))
        assert raw.frame()[1] == b'{"type":"pong"}'

    def test_the_closing_handshake_echoes_the_code(self, raw: RawWebSocket) -> None:
        raw.upgrade().send(client_frame(CLOSE, close_payload(4001, "enough")))
        assert raw.close_code() == 4001
        assert raw.gone()


class TestSilence:
    def test_half_a_frame_and_then_nothing_ends_by_the_heartbeat(self, stack: Stack, raw: RawWebSocket) -> None:
        raw.upgrade().say(json.dumps({"type": "auth", "token": stack.token("half")}))
        raw.send(client_frame(TEXT, b'{"type":"ping"}')[:7])
        assert raw.close_code() == 3012

    def test_without_credentials_it_ends(self, raw: RawWebSocket) -> None:
        raw.upgrade()
        for _ in range(20):
            opcode, payload = raw.frame(pings=True)
            if opcode == CLOSE:
                assert payload[:2] == (3502).to_bytes(2, "big")
                return
            raw.say('{"type":"pong"}')
        pytest.fail("it was never closed")

    def test_a_connection_that_breaks_counts_as_abnormal(self, stack: Stack) -> None:
        before = sample(stack, "carillon_connections_closed_total", code="1006")
        with RawWebSocket(stack.port) as raw:
            raw.upgrade()
        wait_until(lambda: sample(stack, "carillon_connections_closed_total", code="1006") > before, "it is counted")

    def test_a_close_that_is_never_answered_ends_all_the_same(self, stack: Stack, raw: RawWebSocket) -> None:
        raw.upgrade().say('{"type":"auth","token":"nonsense"}')
        assert raw.close_code() == 3500
        assert raw.gone()


class TestFloods:
    """Memory stays where it was."""

    GROWTH = 20_000_000  # bytes

    @pytest.fixture(autouse=True)
    def memory_stays(self, stack: Stack) -> Iterator[None]:
        statm = Path(f"/proc/{stack.worker_pids()[0]}/statm")
        before = int(statm.read_text().split()[1]) * 4096
        yield
        assert int(statm.read_text().split()[1]) * 4096 - before < self.GROWTH

    def test_of_commands(self, raw: RawWebSocket) -> None:
        raw.upgrade()
        subscribes = [client_frame(TEXT, b'{"type":"subscribe","room":"chat:x"}') * 100] * 100
        assert flood(raw, subscribes) in (3013, BROKEN)

    def test_of_subscribes(self, stack: Stack, raw: RawWebSocket) -> None:
        """Ten thousand: 128 are kept, the others are refused, too many at once end the session."""
        raw.upgrade(f"Authorization: Bearer {stack.token('greedy')}")
        rooms = (f'{{"type": "subscribe", "room": "chat:{number}"}}' for number in range(10_000))
        assert flood(raw, (client_frame(TEXT, room.encode()) for room in rooms)) in (3013, 3008, BROKEN)
        wait_until(lambda: sample(stack, "carillon_subscriptions") == 1, "only the bystander is in a room")

    def test_of_a_body_that_goes_on_after_its_refusal(self, stack: Stack) -> None:
        with RawWebSocket(stack.pods[0].internal_port) as raw:
            raw.send(b"POST /api/publish HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert raw.status() == 401
            chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            assert flood(raw, [chunk] * 1000) == BROKEN


BROKEN = -1


def flood(raw: RawWebSocket, chunks: Iterable[bytes]) -> int:
    """The close code, or BROKEN where the server ended the connection while we were still sending."""
    try:
        for chunk in chunks:
            raw.send(chunk)
        return raw.close_code()
    except (ConnectionResetError, BrokenPipeError):
        return BROKEN
