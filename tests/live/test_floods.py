"""More than anybody needs, as fast as it goes, against the real worker: a bound, a code, and others hear as before."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from app.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.support.bystander import Bystander
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.scrape import sample
from tests.support.stack import Stack
from tests.support.waiting import wait_until

GROWTH = 30_000_000  # bytes of resident memory
OUTBOX = 65_536  # bytes
LATENCY = 1.0  # seconds until a publication is heard; on an idle machine it takes some milliseconds


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"CARILLON_PING_INTERVAL": "0", "CARILLON_OUTBOX_BYTES": str(OUTBOX)}
    with Stack(tmp_path_factory.mktemp("floods"), pods=1, workers=1, nginx=False, env=env) as shared:
        yield shared


@pytest.fixture(autouse=True)
def memory_stays(stack: Stack) -> Iterator[None]:
    before, logged = resident(stack), stack.log("pod-1")
    yield
    assert resident(stack) - before < GROWTH
    assert '"level": "error"' not in stack.log("pod-1")[len(logged) :]


def resident(stack: Stack) -> int:
    return int(Path(f"/proc/{stack.worker_pids()[0]}/statm").read_text().split()[1]) * 4096


def closed(stack: Stack, code: int) -> float:
    return sample(stack, "carillon_connections_closed_total", code=str(code))


class Flooder:
    """A client in a thread that sends the same bytes until the server has ended it."""

    def __init__(self, stack: Stack, begin: bytes, again: bytes, *, reading: bool) -> None:
        self._client = RawWebSocket(stack.port, receive_buffer=0 if reading else 4096)
        self._client.upgrade(f"Authorization: Bearer {stack.token('flood')}").frame()
        self._client.send(begin)
        self._again = again
        self._threads = [threading.Thread(target=self._send, daemon=True)]
        if reading:
            self._threads.append(threading.Thread(target=self._read, daemon=True))
        self.code = 0
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        self._client.close()

    def _send(self) -> None:
        with suppress(ConnectionResetError, BrokenPipeError):
            while True:
                self._client.send(self._again)

    def _read(self) -> None:
        self.code = self._client.close_code()


#: How it begins, what comes then without end, and the code.
FLOODS = {
    "pings": (b"", client_frame(PING, b"x" * 125), 3013),
    "pongs": (b"", client_frame(PONG, b""), 3013),
    "empty messages": (b"", client_frame(TEXT, b""), 3013),
    "commands": (b"", client_frame(TEXT, b'{"type":"ping"}'), 3013),
    "empty fragments": (client_frame(TEXT, b"", final=False), client_frame(CONTINUATION, b"", final=False), 1008),
    "fragments of a byte": (client_frame(TEXT, b"", final=False), client_frame(CONTINUATION, b"x", final=False), 1008),
    "frames after the close": (client_frame(BINARY, b""), client_frame(TEXT, b""), 1003),
}


def flood(stack: Stack, kinds: Sequence[str], *, reading: bool) -> None:
    """Until all flooders are gone; checks what they were told, what was counted, and what somebody else noticed."""
    codes = [FLOODS[kind][2] for kind in kinds]
    before = {code: closed(stack, code) for code in codes}
    with Bystander(stack) as bystander:
        latencies = [bystander.hears()]
        flooders = [
            Flooder(stack, begin, again * 5000, reading=reading) for begin, again, _ in (FLOODS[kind] for kind in kinds)
        ]
        while any(flooder.running for flooder in flooders):
            latencies.append(bystander.hears())
        for flooder in flooders:
            flooder.close()
    print(f"{kinds}: a publication took at most {max(latencies):.3f} s, of {len(latencies)}")
    assert max(latencies) < LATENCY
    if reading:
        assert [flooder.code for flooder in flooders] == codes, "each has seen why"
    for code, count in Counter(codes).items():
        wait_until(lambda: closed(stack, code) - before[code] == count, f"{code} is counted")  # noqa: B023


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
def test_floods_end_with_a_code_and_others_hear_as_before(stack: Stack, reading: bool) -> None:
    flood(stack, list(FLOODS), reading=reading)


@pytest.mark.long
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
@pytest.mark.parametrize("kind", FLOODS)
def test_eight_of_a_kind(stack: Stack, kind: str, reading: bool) -> None:
    flood(stack, [kind] * 8, reading=reading)


def test_a_member_that_reads_one_byte_at_a_time_is_sent_away(stack: Stack) -> None:
    """O1: what waits for it is bounded, and everybody else gets everything."""
    with Bystander(stack) as bystander, RawWebSocket(stack.port, receive_buffer=4096) as slow:
        slow.upgrade(f"Authorization: Bearer {stack.token('slow')}").frame()
        slow.say('{"type": "subscribe", "room": "chat:bystander"}')
        slow.frame()
        for number in range(500):
            bystander.hears("x" * 4000)
            slow.read_byte()
            if number % 20 == 0:
                assert sample(stack, "carillon_outbox_bytes") <= OUTBOX
                if sample(stack, "carillon_slow_consumers_total", policy="disconnect"):
                    break
        assert slow.close_code() == 3008


def test_a_slow_close_of_a_flooded_room_is_not_written_to(stack: Stack) -> None:
    """Who has broken a rule, and does not go, gets no more publications."""
    with Bystander(stack) as bystander, RawWebSocket(stack.port) as rude:
        rude.upgrade(f"Authorization: Bearer {stack.token('rude')}").frame()
        rude.say('{"type": "subscribe", "room": "chat:bystander"}')
        rude.frame()
        bystander.hears()
        rude.frame()
        rude.send(client_frame(CONTINUATION, b""))
        assert rude.frame()[0] == CLOSE
        bystander.hears()
        assert rude.gone_without_a_word()


def test_requests_that_nobody_waits_for_are_bounded(stack: Stack) -> None:
    """HTTP: twenty clients, each with thousands of requests in one packet; it took 700 MB and the worker with it."""
    with Bystander(stack) as bystander:
        clients = [RawWebSocket(stack.port) for _ in range(20)]
        for client in clients:
            for _ in range(5):
                client.send_if_open(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n" * 10_000)
        assert bystander.hears() < LATENCY
        for client in clients:
            assert client.gone()
            client.close()
    wait_until(lambda: sample(stack, "carillon_limit_hits_total", limit="pipelined_requests") == 20, "it is counted")
