"""The innermost loop of the fan-out: in Python and in C the same bytes reach the same connections, in order (O5)."""

import ctypes
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from app import native
from app.broker.base import Position
from app.gateway import writers
from app.gateway.connection import NO_SOCKET
from app.gateway.writers import Writers
from app.wire.frames import TEXT, framed
from app.wire.messages import Insufficient
from app.wire.publication import Publication, pack
from tests.support.in_process import Node
from tests.support.parts import require
from tests.support.socket_peers import SocketPeer
from tests.support.waiting import until

MODES = ("Python", "C")
EVERYBODY = 1_000_000


@pytest.fixture(params=MODES)
def native_send(request: pytest.FixtureRequest) -> bool:
    if request.param == "C":
        require("send-loop")
    return bool(request.param == "C")


@pytest.fixture
def send(native_send: bool) -> native.Send | None:
    return native.load() if native_send else None


@asynccontextmanager
async def peers_of(count: int, **buffers: int) -> AsyncIterator[list[SocketPeer]]:
    async with Node() as node:
        peers = [await SocketPeer(node, **buffers).open(f"u{number}") for number in range(count)]
        for peer in peers:
            await peer.until_told("welcome")
        yield peers
        for peer in peers:
            peer.close()


def message(number: int, size: int = 20) -> bytes:
    return framed(TEXT, f'{{"type":"message","room":"r","data":[{number},"{"x" * size}"]}}'.encode())


def numbers(peer: SocketPeer) -> list[int]:
    return [number for number, _ in peer.data("r")]


class TestWhoGetsWhat:
    async def test_everybody_in_order(self, send: native.Send | None) -> None:
        async with peers_of(5) as peers:
            writers = Writers([peer.session for peer in peers])
            assert len(writers) == 5
            for number in range(3):
                writers.write(send, message(number), 0, EVERYBODY)
            assert [numbers(peer) for peer in peers] == [[0, 1, 2]] * 5

    @pytest.mark.parametrize(
        ("start", "stop", "reached"), [(0, 2, "01"), (2, 4, "23"), (4, EVERYBODY, "4"), (0, 5, "01234"), (3, 3, "")]
    )
    async def test_a_chunk(self, send: native.Send | None, start: int, stop: int, reached: str) -> None:
        async with peers_of(5) as peers:
            Writers([peer.session for peer in peers]).write(send, message(1), start, stop)
            assert "".join(str(index) for index, peer in enumerate(peers) if numbers(peer)) == reached

    @pytest.mark.parametrize("apart", ["", "0", "3", "13", "24", "34", "01234", "012345"])
    @pytest.mark.parametrize("few", [0, 8])
    async def test_around_some(
        self, send: native.Send | None, apart: str, few: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those who are looked for need not be there, and few are looked for in another way than many."""
        monkeypatch.setattr(writers, "FEW", few)
        async with peers_of(6) as peers:
            five = Writers([peer.session for peer in peers[:5]])
            for start, stop in five.around({peers[int(index)].session for index in apart}):
                assert start < stop
                five.write(send, message(1), start, stop)
            reached = "".join(str(index) for index, peer in enumerate(peers) if numbers(peer))
            assert reached == "".join(sorted({*"01234"} - {*apart}))


class TestFullSockets:
    BIG = 40_000  # bytes: more than the buffers of such a connection hold
    BUFFERS: Mapping[str, Any] = {"send_buffer": 4096, "receive_buffer": 4096}

    async def test_the_rest_is_sent_when_there_is_room_and_nothing_twice(self, send: native.Send | None) -> None:
        async with peers_of(3, **self.BUFFERS) as peers:
            big = message(1, self.BIG)
            Writers([peer.session for peer in peers]).write(send, big, 0, EVERYBODY)
            before = [peer.read() for peer in peers]
            assert all(len(read) < len(big) for read in before)
            assert all(peer.session.raw_write is None for peer in peers), "marked as not writable"
            for peer in peers:
                await until(lambda peer=peer: numbers(peer), "all of it")
                assert peer.read().endswith(big)
                assert numbers(peer) == [1]
                await until(lambda peer=peer: peer.session.raw_write is not None, "writable again")

    async def test_one_that_does_not_read_does_not_hold_the_others(self, send: native.Send | None) -> None:
        async with Node() as node:
            full = await SocketPeer(node, **self.BUFFERS).open("full")
            peers = [await SocketPeer(node).open(f"u{number}") for number in range(2)]
            await full.until_told("welcome")
            Writers([full.session]).write(send, message(0, self.BIG), 0, EVERYBODY)
            mixed = Writers([peers[0].session, peers[1].session])
            mixed.write(send, message(1), 0, EVERYBODY)
            assert [numbers(peer) for peer in peers] == [[1], [1]]
            assert numbers(full) == []
            for peer in (full, *peers):
                peer.close()


class TestWithoutSockets:
    async def test_one_without_a_socket_makes_all_go_through_their_transports(self) -> None:
        """TLS, or a transport that is not ours."""
        asked: list[int] = []

        def send(sockets: int, count: int, data: bytes, size: int, unsent: int) -> int:
            asked.append(count)
            return 0

        async with peers_of(3) as peers:
            peers[1].connection._socket = NO_SOCKET
            Writers([peer.session for peer in peers]).write(send, message(1), 0, EVERYBODY)
            assert [numbers(peer) for peer in peers] == [[1]] * 3
            assert asked == []
            Writers([peers[0].session, peers[2].session]).write(send, message(2), 0, EVERYBODY)
            assert asked == [2]

    async def test_what_the_loop_left_goes_to_that_transport(self) -> None:
        def send(sockets: int, count: int, data: bytes, size: int, unsent: int) -> int:
            told = array("i", [0, 5, 2, 0]).tobytes()
            ctypes.memmove(unsent, told, len(told))
            return 2

        async with peers_of(4) as peers:
            before = [len(peer.read()) for peer in peers]
            data = message(7)
            Writers([peer.session for peer in peers]).write(send, data, 1, 4)
            read = [peer.read()[start:] for peer, start in zip(peers, before, strict=True)]
            assert read == [b"", data[5:], b"", data]


def publish(node: Node) -> None:
    node.gateway.publication("chat:x", Position("", 0), pack(Publication(Raw(b'"the publication"'), None)))


async def test_a_pass_in_chunks_does_not_overtake_what_a_transport_still_holds(native_send: bool) -> None:
    """A member may be paused between two chunks, and its socket take bytes again before the transport has noticed."""
    async with Node(fanout_chunk=1, native_send=native_send) as node:
        peers = [await SocketPeer(node, send_buffer=4096, receive_buffer=4096).join("chat:x") for _ in range(3)]
        publish(node)
        room = node.gateway.hub.rooms["chat:x"]
        assert room.passing
        for peer in peers:
            peer.session.send(Insufficient(room="x" * 40_000))
            assert peer.session.raw_write is None
            peer.read()
        node.gateway.hub.flush(room)
        for peer in peers:
            await until(lambda peer=peer: peer.data("chat:x") and peer.told("insufficient"), "both")
            assert len(peer.data("chat:x")) == 1
            peer.close()


async def test_the_loop_in_c_goes_on_with_the_next_publication() -> None:
    """After a pass that a member's pause has handed to the transports."""
    require("send-loop")
    loop = native.load()
    assert loop is not None
    reached: list[int] = []

    def send(sockets: int, count: int, data: bytes, size: int, unsent: int) -> int:
        reached.append(count)
        return loop(sockets, count, data, size, unsent)

    async with Node(fanout_chunk=1) as node:
        node.gateway.hub._send = send
        peers = [await SocketPeer(node).join("chat:x") for _ in range(3)]
        publish(node)
        peers[0].session.pause_writing()
        await until(lambda: all(peer.data("chat:x") for peer in peers), "the first")
        assert reached == [1]
        peers[0].session.resume_writing()
        publish(node)
        await until(lambda: all(len(peer.data("chat:x")) == 2 for peer in peers), "the second")
        assert reached == [1] * 4
        for peer in peers:
            peer.close()
