"""What a delivery and an idle session may cost: counted, not timed, so that it fails on any machine alike (O5)."""

import asyncio
import gc
import socket
import struct
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from types import FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from msgspec import Raw

from app.auth.permissions import Claims
from app.broker.base import Position
from app.gateway.gateway import Gateway
from app.gateway.room import Room
from app.gateway.session import Session
from app.server.handshake import Answer
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.wire.parser import FrameParser
from app.wire.plain import JSON
from app.wire.publication import Publication, pack
from tests.support.in_process import Node
from tests.support.parts import require
from tests.support.socket_peers import CONFIG, SocketPeer
from tests.support.waiting import until

MODES = ("Python", "C")
ENVELOPE = pack(Publication(Raw(b'"the publication"'), None))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def publish(node: Node, envelope: bytes = ENVELOPE) -> None:
    node.gateway.publication("chat:x", Position("", 0), envelope)


# -- one delivery


class Crowd:
    """A room of so many, that is written to and keeps nothing; in `C` their sockets go to a loop that does nothing."""

    def __init__(self, node: Node, mode: str) -> None:
        self.node = node
        self.calls = 0
        if mode == "C":
            node.gateway.hub._send = self._send
        self._mode = mode

    def _send(self, sockets: int, count: int, data: bytes, size: int, unsent: int) -> int:
        self.calls += 1
        return 0

    async def join(self, members: int) -> None:
        for number in range(members):
            peer = await self.node.connect(f"u{number}")
            connection = peer.connection
            connection.raw_write = peer.session.raw_write = deque(maxlen=0).append
            connection.socket = number if self._mode == "C" else connection.socket
            await self.node.gateway.hub.join(
                peer.session, "chat:x", self.node.settings.namespaces["chat"], lambda _, __: None
            )
        publish(self.node)  # makes the snapshot


def steps(work: Callable[[], None]) -> int:
    """How many lines of Python and calls of functions that takes; the functions in C count too."""
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event in ("call", "line")
        return line

    def call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(call)
    try:
        work()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return count


def peak(work: Callable[[], None]) -> int:
    """How many bytes more were in use at some moment of it."""
    tracemalloc.start()
    try:
        work()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class TestDelivery:
    FEW, MANY = 50, 500

    async def of_both(self, mode: str, measure: Callable[[Callable[[], None]], int]) -> tuple[int, int]:
        found = []
        for members in (self.FEW, self.MANY):
            async with Node() as node:
                await Crowd(node, mode).join(members)
                found.append(measure(lambda node=node: publish(node)))
        return found[0], found[1]

    async def test_the_work_does_not_grow_with_members(self, mode: str) -> None:
        """In C nothing is done for each member in Python; else one turn of a loop, and its one write."""
        few, many = await self.of_both(mode, steps)
        each = {"C": 0, "Python": 3}[mode]  # the line of the loop, that of the write, and the write
        assert many - few == each * (self.MANY - self.FEW)
        assert few - each * self.FEW < 250

    async def test_no_object_is_made_for_a_member(self, mode: str) -> None:
        """Only arrays: of references, or of what the loop in C tells."""
        few, many = await self.of_both(mode, peak)
        assert many - few <= 24 * (self.MANY - self.FEW)
        assert few < 8192

    async def test_a_publisher_in_the_room_costs_no_work_for_each_member(self) -> None:
        """It does not hear itself (`echo` off), and its next message has to say so (O2)."""
        found = []
        for members in (self.FEW, self.MANY):
            async with Node() as node:
                crowd = Crowd(node, "C")
                await crowd.join(members)
                session = next(iter(node.gateway.hub.rooms["chat:x"].members))
                own = pack(Publication(Raw(b'"its own"'), session.claims.user, session.id))  # type: ignore[union-attr]
                publish(node, own)
                found.append(steps(lambda node=node, own=own: (publish(node, own), publish(node))))  # type: ignore[misc]
        assert found[0] == found[1]

    async def test_nothing_is_kept(self, mode: str) -> None:
        async with Node() as node:
            await Crowd(node, mode).join(self.FEW)
            for _ in range(10):
                publish(node)
            before = sys.getallocatedblocks()
            for _ in range(100):
                publish(node)
            assert sys.getallocatedblocks() - before < 50

    async def test_the_snapshot_is_made_once(self, mode: str) -> None:
        async with Node() as node:
            await Crowd(node, mode).join(3)
            snapshot = node.gateway.hub.rooms["chat:x"].writers
            publish(node)
            assert node.gateway.hub.rooms["chat:x"].writers is snapshot

    async def test_the_loop_in_c_is_called_once_for_a_chunk(self) -> None:
        async with Node(fanout_chunk=20) as node:
            crowd = Crowd(node, "C")
            await crowd.join(50)
            room = node.gateway.hub.rooms["chat:x"]
            await until(lambda: not room.passing, "the first pass")
            before = crowd.calls
            publish(node)
            await until(lambda: not room.passing, "the second")
            assert crowd.calls - before == 3


# -- system calls


def segments(peer: SocketPeer) -> int:
    """How many segments with data have come: on loopback, as many as there were calls that sent a little each.

    `tcpi_data_segs_in` of Linux' struct tcp_info."""
    info = peer.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    found: int = struct.unpack_from("I", info, 152)[0]
    return found


class TestSystemCalls:
    @pytest.fixture
    def native_send(self, mode: str) -> bool:
        if mode == "C":
            require("send-loop")
        return mode == "C"

    async def test_the_answer_to_an_upgrade_and_welcome_leave_together(self) -> None:
        async with Node() as node:
            peer = await SocketPeer(node).open()
            await peer.until_told("welcome")
            assert segments(peer) == 1
            peer.close()

    async def test_one_for_a_publication_and_member(self, native_send: bool) -> None:
        async with Node(native_send=native_send) as node:
            peers = [await SocketPeer(node).join("chat:x", user=f"u{number}") for number in range(10)]
            before = [segments(peer) for peer in peers]
            for number in (1, 2, 3):  # one after the other: the kernel joins what it has not passed on yet
                publish(node)
                await until(lambda number=number: all(len(peer.data("chat:x")) == number for peer in peers), "all")
            assert [segments(peer) - start for peer, start in zip(peers, before, strict=True)] == [3] * 10
            for peer in peers:
                peer.close()

    async def test_one_for_all_publications_of_a_window(self, native_send: bool) -> None:
        """O4."""
        async with Node(native_send=native_send, namespaces={"chat": {"coalesce_ms": 5}}) as node:
            peers = [await SocketPeer(node).join("chat:x", user=f"u{number}") for number in range(10)]
            before = [segments(peer) for peer in peers]
            for _ in range(5):
                publish(node)
            await until(lambda: all(len(peer.data("chat:x")) == 5 for peer in peers), "all of them")
            assert [segments(peer) - start for peer, start in zip(peers, before, strict=True)] == [1] * 10
            for peer in peers:
                peer.close()


# -- one idle session


class Nowhere(asyncio.Transport):
    """A transport that sends nothing, one for all: only what we keep ourselves is counted."""

    __slots__ = ()

    def write(self, data: Any) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Idle:
    """Sessions that are let in, in one room they share, and say nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._state = NodeState(node.settings)
        self._transport = Nowhere()

    async def session(self, number: int) -> Session:
        node = self._node
        connection = WebSocketProtocol(CONFIG, self._state, {})
        connection.connection_made(self._transport)
        connection.accept(Answer(b"not checked here"), None, [])
        session = Session(node.gateway, connection, JSON, None)
        node.gateway.add(session, None)
        connection.hand_over(session)
        await node.gateway.admit(session, Claims(f"user-{number}", None, ("*",), ("*",)))
        await node.gateway.hub.join(session, "chat:x", node.settings.namespaces["chat"], lambda _, __: None)
        await asyncio.sleep(0)
        return session


SHARED = (Gateway, Room, NodeState, asyncio.BaseTransport, asyncio.AbstractEventLoop, type, ModuleType, FunctionType)


def reached(session: Session) -> dict[int, object]:
    """Everything that hangs on a session, without what is one for all."""
    found: dict[int, object] = {}
    ahead: list[object] = [session]
    while ahead:
        thing = ahead.pop()
        if id(thing) not in found and not isinstance(thing, SHARED):
            found[id(thing)] = thing
            ahead += gc.get_referents(thing)
    return found


class TestIdleSession:
    async def test_what_hangs_on_it_has_slots_and_neither_task_nor_timer_nor_queue(self) -> None:
        async with Node() as node:
            idle = Idle(node)
            first, second = [reached(await idle.session(number)) for number in range(2)]
            own = [thing for key, thing in first.items() if key not in second]
            kinds = {type(thing) for thing in own}
            assert {Session, WebSocketProtocol, FrameParser} <= kinds
            assert [kind for kind in kinds if kind.__module__.startswith("app.") and kind.__dictoffset__] == []
            waits = (asyncio.Future, asyncio.Handle, asyncio.Event, asyncio.Queue, deque, bytearray)
            assert [thing for thing in own if isinstance(thing, waits)] == []

    async def test_the_loop_does_not_know_of_it(self) -> None:
        async with Node() as node:
            idle = Idle(node)
            await idle.session(0)
            loop: Any = asyncio.get_running_loop()
            tasks, timers = len(asyncio.all_tasks()), len(loop._scheduled)
            for number in range(20):
                await idle.session(number)
            assert (len(asyncio.all_tasks()), len(loop._scheduled), len(loop._ready)) == (tasks, timers, 0)

    async def test_its_memory_is_bounded(self) -> None:
        """Without the transport and what the kernel keeps."""
        count = 1000
        async with Node() as node:
            idle = Idle(node)
            await idle.session(count)
            gc.collect()
            tracemalloc.start()
            try:
                for number in range(count):
                    await idle.session(number)
                each = tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()
            assert each < 2000, "bytes"
