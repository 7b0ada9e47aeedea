"""One connection: pipelined, in order, and honest about what became of a command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.broker.connection import Connection, ConnectionLost, NotSent, ReplyError, connect
from app.broker.url import Address, Login

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(serve: Serve, *, timeout: float = 5) -> AsyncIterator[Connection]:
    """A connection to a server that does what the test says."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address(*server.sockets[0].getsockname())
    connection = await connect(lambda: Connection(timeout), address, Login(), tls=None)
    try:
        yield connection
    finally:
        connection.abort()
        await connection.closed
        server.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_calls_of_one_tick_leave_as_one_write() -> None:
    reads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reads.append(await reader.read(65_536))
        writer.write(b"+A\r\n:2\r\n$-1\r\n*1\r\n$1\r\nd\r\n")
        await silent(reader, writer)

    async with connected(serve) as connection:
        answers = await asyncio.gather(*(connection.call("PING", n) for n in range(4)))
    assert answers == [b"A", 2, None, [b"d"]]
    assert reads == [b"".join(b"*2\r\n$4\r\nPING\r\n$1\r\n%d\r\n" % n for n in range(4))]


async def test_replies_find_their_calls_however_they_are_cut() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        for byte in b"$3\r\nabc\r\n-ERR no\r\n:7\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await silent(reader, writer)

    async with connected(serve) as connection:
        answers = await asyncio.gather(*(connection.call("X") for _ in range(3)), return_exceptions=True)
    assert answers[0] == b"abc"
    assert isinstance(answers[1], ReplyError)
    assert answers[1].code == "ERR"
    assert answers[2] == 7


async def test_a_caller_that_gave_up_does_not_shift_the_replies() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(b":1\r\n:2\r\n")
        await silent(reader, writer)

    async with connected(serve) as connection:
        first, second = connection.call("A"), connection.call("B")
        first.cancel()
        assert await second == 2


async def test_a_lost_connection_leaves_the_outcome_unknown_then_nothing_is_sent() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async with connected(serve) as connection:
        with pytest.raises(ConnectionLost) as lost:
            await connection.call("PING")
        assert not isinstance(lost.value, NotSent)
        with pytest.raises(NotSent):
            await connection.call("PING")


async def test_silence_ends_a_connection_that_owes_a_reply() -> None:
    async with connected(silent, timeout=0.1) as connection:
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionLost):
            await connection.call("PING")
        assert asyncio.get_running_loop().time() - began < 10


async def test_silence_is_fine_where_nothing_is_owed() -> None:
    async with connected(silent, timeout=0.05) as connection:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(connection.closed), 0.2)


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+nobody asked\r\n"])
async def test_what_is_not_a_reply_ends_the_connection(noise: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(noise)
        await silent(reader, writer)

    async with connected(serve) as connection:
        await asyncio.wait_for(connection.closed, 5)


async def test_a_refused_login_ends_the_connection_and_hides_the_password() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(b"-ERR unknown command 'AUTH', with args beginning with: 'ann' 'hunter2'\r\n")
        await silent(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address(*server.sockets[0].getsockname())
    with pytest.raises(ReplyError) as refused:
        await connect(lambda: Connection(5), address, Login("ann", "hunter2"), tls=None)
    assert str(refused.value) == "ERR the server refused user or password"
    server.close()
