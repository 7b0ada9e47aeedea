"""The send loop in C and its stand-in in Python, in real workers: whole frames, in order, to nobody else."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from app.wire.frames import TEXT
from tests.support.client import Client, close_all, open_all
from tests.support.fan_out import everybody_hears_all
from tests.support.parts import require
from tests.support.raw_websocket import RawWebSocket, client_frame
from tests.support.stack import Stack
from tests.support.stalled import unsent_bytes
from tests.support.waiting import wait_until

SEND_BUFFER = 8192  # bytes

ENV = {
    "CARILLON_FANOUT_CHUNK": "1",  # a turn of the loop for each member
    "CARILLON_SEND_BUFFER": str(SEND_BUFFER),
    "CARILLON_OUTBOX_BYTES": "20000000",
    "CARILLON_MESSAGE_RATE": "0",
    "CARILLON_CONNECT_RATE": "0",
    "CARILLON_PING_INTERVAL": "0",
}


@contextmanager
def worker(folder: Path, mode: str) -> Iterator[Stack]:
    if mode == "C":
        require("send-loop")
    with Stack(
        folder, pods=1, workers=1, nginx=False, env=ENV | {"CARILLON_NATIVE_SEND": str(mode == "C").lower()}
    ) as stack:
        yield stack


@pytest.fixture(scope="module", params=["C", "Python"])
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    with worker(tmp_path_factory.mktemp("send-loop"), request.param) as shared:
        yield shared


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["stack"])


class Member:
    """A client whose upgrade says who it is and its room; what it gets must be messages of that room, or replies."""

    def __init__(self, stack: Stack, room: str, *, receive_buffer: int = 0) -> None:
        self.room = room
        self.numbers: list[int] = []
        self._token = stack.token(room)
        self._raw = RawWebSocket(stack.port, receive_buffer=receive_buffer)

    def enter(self) -> Self:
        self._raw.upgrade(f"Authorization: Bearer {self._token}", path=f"/ws/{self.room}")
        assert self.event()["type"] == "welcome", "the first frame (A4)"
        while "room" not in self.event():
            pass
        return self

    def event(self) -> dict[str, Any]:
        opcode, payload = self._raw.frame()
        assert opcode == TEXT, payload
        found: dict[str, Any] = json.loads(payload)
        assert found.get("room", self.room) == self.room, "this was not for us"
        if found["type"] == "message":
            self.numbers.append(found["data"][0])
        return found

    def say(self, **message: Any) -> None:
        self._raw.send(client_frame(TEXT, json.dumps(message).encode()))

    def hear_next(self) -> None:
        """Waits for a publication."""
        before = len(self.numbers)
        while len(self.numbers) == before:
            self.event()

    def hear_until(self, last: int) -> list[int]:
        """The first item of each publication's data, until this one."""
        while not self.numbers or self.numbers[-1] != last:
            self.event()
        return self.numbers

    def vanish(self) -> None:
        """With RST: the server's descriptor is free at once."""
        self._raw.reset()

    def close(self) -> None:
        self._raw.close()


def test_the_setting_decides(stack: Stack, mode: str) -> None:
    (pid,) = stack.worker_pids()
    assert ("/send_loop-" in Path(f"/proc/{pid}/maps").read_text()) is (mode == "C")


async def test_every_client_gets_every_message_once_and_in_order(stack: Stack) -> None:
    clients = [Client(stack.ws_url, token=stack.token(f"user-{number}")) for number in range(30)]
    await open_all(clients)
    await everybody_hears_all(stack, clients, "demo:all", publications=200)
    await close_all(clients)


def test_one_that_reads_slowly_gets_whole_frames_in_order_with_replies_between_them(stack: Stack) -> None:
    """O1, O3: partial sends go on in its transport, and nothing overtakes them."""
    sizes = [100, 30_000, 5, 9_000]
    count = 200
    with ExitStack() as opened:
        others = [Member(stack, "chat:slow").enter() for _ in range(5)]
        slow = Member(stack, "chat:slow", receive_buffer=4096).enter()
        for member in (*others, slow):
            opened.callback(member.close)

        def publish() -> None:
            for number in range(count):
                stack.publish("chat:slow", [number, "x" * sizes[number % len(sizes)]])

        publisher = threading.Thread(target=publish)
        readers = [threading.Thread(target=other.hear_until, args=[count - 1]) for other in others]
        for thread in (publisher, *readers):
            thread.start()
        wait_until(lambda: unsent_bytes(stack.port) > SEND_BUFFER, "its socket is full")
        pongs, asked = [], 0
        while len(slow.numbers) < count or len(pongs) < asked:
            if len(slow.numbers) < count and asked <= len(slow.numbers) // 2:
                slow.say(type="ping", id=asked)
                asked += 1
            event = slow.event()
            if event["type"] == "message":
                number, filling = event["data"]
                assert filling == "x" * sizes[number % len(sizes)]
            else:
                assert event["type"] == "pong"
                pongs.append(event["id"])
        assert slow.numbers == list(range(count))
        assert pongs == list(range(asked))
        for thread in (publisher, *readers):
            thread.join(10)
            assert not thread.is_alive(), "the others have all"


ROOMS = ("chat:tin", "chat:zinc")
SEATS = 60
ROUNDS = 30


@pytest.mark.parametrize("stack", ["C"], indirect=True)
def test_descriptors_that_change_hands_carry_nothing_of_their_last_owner(stack: Stack) -> None:
    """Members vanish in the midst of passes, and others take their descriptors, mostly in the other room."""
    over = threading.Event()
    published = [0]

    def publish() -> None:
        while not over.is_set():
            for room in ROOMS:
                stack.publish(room, [published[0], room * 30])
            published[0] += 1

    with ExitStack() as opened:
        witnesses = [Member(stack, room).enter() for room in ROOMS for _ in range(3)]
        seats = [Member(stack, ROOMS[number % 2]).enter() for number in range(SEATS)]
        opened.callback(lambda: [member.close() for member in (*witnesses, *seats)])
        publisher = threading.Thread(target=publish)
        publisher.start()
        opened.callback(publisher.join)
        opened.callback(over.set)
        for turn in range(ROUNDS):
            changing = range(turn % 3, SEATS, 3)
            for number in changing:
                seats[number].vanish()
                seats[number] = Member(stack, ROOMS[(number + turn) % 2])
            for number in changing:
                seats[number].enter()
            for seat in seats:
                seat.hear_next()
        over.set()
        publisher.join()
        for witness in witnesses:
            assert witness.hear_until(published[0] - 1) == list(range(published[0]))
        for seat in seats:
            heard = seat.hear_until(published[0] - 1)
            assert heard == list(range(heard[0], published[0])), "nothing is missing between"
