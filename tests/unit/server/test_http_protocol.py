"""Request heads on a socket (H5), and what is left of a connection (H4)."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from app.server.arrival import Arrival
from app.server.http_protocol import PIPELINED, HttpProtocol
from app.server.websocket_protocol import WebSocketProtocol
from tests.support.listener import GET, UPGRADE, Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(max_head_bytes=1000, max_head_fields=10, max_half_open=3) as served:
        yield served


async def test_a_head_at_the_limits_is_served(served: Served) -> None:
    fields = [b"x: y"] * 8 + [b"connection: close", b"big: " + b"a" * 800]
    assert (await served.answer(b"GET / HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n")).endswith(b"10")


@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 11 + b"\r\n", "max_head_fields"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 1001 + b"\r\n\r\n", "max_head_bytes"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 2000, "max_head_bytes"),
        (b"GET /" + b"a" * 1001, "max_head_bytes"),
        (b"x" * 1001, None),
        (GET + b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 11 + b"\r\n", "max_head_fields"),
    ],
    ids=["fields", "one field", "an unfinished field", "an unfinished path", "no HTTP at all", "the second request"],
)
async def test_beyond_a_limit(served: Served, head: bytes, limit: str | None) -> None:
    answer = await served.answer(head)
    counters = served.state.counters
    assert counters.limit_hits == ({limit: 1} if limit else {})
    assert counters.bad_requests == (0 if limit else 1)
    if not head.startswith(GET):
        assert answer.startswith(b"HTTP/1.1 431 " if limit else b"HTTP/1.1 400 ")


async def test_a_head_in_many_pieces_counts_as_a_whole(served: Served) -> None:
    _, writer = await served.connect(b"GET / HTTP/1.1\r\nx: ")
    limit_hits = served.state.counters.limit_hits
    async with asyncio.timeout(3):
        while not limit_hits:
            writer.write(b"a" * 20)
            await asyncio.sleep(0)
    assert limit_hits == {"max_head_bytes": 1}


async def test_a_body_is_no_head(served: Served) -> None:
    head = b"POST /slow HTTP/1.1\r\nconnection: close\r\ncontent-length: 200000\r\n\r\n"
    assert (await served.answer(head + b"b" * 200_000)).startswith(b"HTTP/1.1 200 ")
    assert served.state.counters.limit_hits == {}


async def test_silence_and_slowness_end_after_the_timeout_and_not_before(served: Served) -> None:
    silent, silent_writer = await served.connect()  # a writer that is dropped closes its connection
    slow, slow_writer = await served.connect(b"GET / HT")
    await served.until(lambda: {type(c) for c in served.state.half_open} == {Arrival, HttpProtocol})
    served.sweep_after(9.9)
    assert len(served.state.half_open) == 2
    served.sweep_after(10.1)
    assert await silent.read() == b""
    assert (await slow.read()).startswith(b"HTTP/1.1 408 ")
    assert served.state.half_open == {}
    assert served.state.counters.limit_hits == {"head_timeout": 2}
    silent_writer.close()
    slow_writer.close()


async def test_between_requests_no_head_is_awaited_until_a_byte_comes(served: Served) -> None:
    reader, writer = await served.connect(GET)
    await reader.readuntil(b"\r\n\r\n1")
    assert served.state.half_open == {}
    writer.write(b"\r\n")
    await served.until(lambda: len(served.state.half_open) == 1)
    writer.write(GET)
    assert (await reader.readuntil(b"\r\n\r\n1")).startswith(b"HTTP/1.1 200 ")
    assert served.state.half_open == {}


async def test_a_slow_handler_is_no_slow_head(served: Served) -> None:
    reader, writer = await served.connect(b"POST /slow HTTP/1.1\r\ncontent-length: 2\r\nhost: x\r\n\r\nb")
    await served.until(lambda: len(served.state.tasks) == 1)
    served.sweep_after(60)
    writer.write(b"b")
    assert (await reader.readuntil(b"\r\n\r\n2")).startswith(b"HTTP/1.1 200 ")


async def test_half_open_connections_are_bounded_and_make_room_again(served: Served) -> None:
    open_ones = [await served.connect() for _ in range(3)]
    await served.until(lambda: len(served.state.half_open) == 3)
    assert (await served.answer(b"")).startswith(b"HTTP/1.1 503 ")
    assert served.state.counters.limit_hits == {"max_half_open": 1}
    open_ones[0][1].close()
    await served.until(lambda: len(served.state.half_open) == 2)
    assert (await served.answer(GET.replace(b"x", b"x\r\nconnection: close"))).startswith(b"HTTP/1.1 200 ")


async def test_probes_get_in_however_full_the_public_port_is(served: Served) -> None:
    """Else whoever opens connections makes the pod unready."""
    open_ones = [await served.connect() for _ in range(3)]
    await served.until(lambda: len(served.state.half_open) == 3)
    served.state.settings = served.state.settings.model_copy(update={"internal_port": served.port})
    assert (await served.answer(GET.replace(b"x", b"x\r\nconnection: close"))).startswith(b"HTTP/1.1 200 ")
    for _, writer in open_ones:
        writer.close()


async def test_an_unknown_upgrade_is_answered_as_http_and_ends(served: Served) -> None:
    answer = await served.answer(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


async def test_requests_that_wait_for_an_answer_are_bounded(served: Served) -> None:
    """One read holds thousands; uvicorn would make an object of some kilobytes for each."""
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    reader, writer = await served.connect(slow * PIPELINED)
    for _ in range(PIPELINED):
        assert (await reader.readuntil(b"\r\n\r\n2")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert (await served.answer(slow * 200)).count(b"HTTP/1.1 ") <= PIPELINED
    assert served.state.counters.limit_hits == {"pipelined_requests": 1}


async def test_what_follows_a_refused_upgrade_is_not_looked_at(served: Served) -> None:
    """Else any client could fill the log with tracebacks."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    for rest in (b"nonsense", UPGRADE):
        answer = await served.answer(UPGRADE.replace(b"version: 13", b"version: 12") + rest)
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert answer.count(b"HTTP/1.1 ") == 1
    assert errors == []
    assert not served.state.tasks


async def test_an_upgrade_in_the_midst_of_another_response_is_refused(served: Served) -> None:
    """Frames would land in that response, and the fan-out in what the transport still holds of it."""
    answer = await served.answer(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + UPGRADE)
    assert b" 101 " not in answer
    assert served.state.counters.bad_requests == 1
    assert not served.state.connections


async def test_the_end_of_the_server_is_no_frame_before_the_handshake_is_answered(served: Served) -> None:
    reader, writer = await served.connect(UPGRADE.replace(b"/ws", b"/undecided"))
    await served.until(lambda: any(isinstance(c, WebSocketProtocol) for c in served.state.connections))
    for connection in tuple(served.state.connections):
        connection.shutdown()
        connection.shutdown()
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    await served.until(lambda: not served.state.tasks and not served.state.connections)
    writer.close()


async def test_a_draining_node_closes_after_the_response(served: Served) -> None:
    served.state.draining = True
    assert b"connection: close" in await served.answer(GET)


async def test_garbage_does_not_land_in_a_response_under_way(served: Served) -> None:
    answer = await served.answer(b"POST /slow HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n")
    assert b"400" not in answer
    assert served.state.counters.bad_requests == 1


async def test_nothing_is_left_of_an_upgraded_connection_with_gc_off() -> None:
    gc.collect()
    gc.disable()
    try:
        async with serving() as served:
            for _ in range(20):
                reader, writer = await served.connect(UPGRADE)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                assert served.state.half_open == {}
                writer.close()
            await served.until(lambda: not served.state.connections)
            await served.until(lambda: sum(isinstance(o, HttpProtocol) for o in gc.get_objects()) == 0)
    finally:
        gc.enable()
