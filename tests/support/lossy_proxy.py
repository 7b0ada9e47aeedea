"""A proxy that knows WebSocket frames and takes some of the server's messages away: what a check of losses must see."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from local.ports import HOST


class LossyProxy:
    """`drops` says of each message of the server whether it vanishes; `port` is its own."""

    def __init__(self, target: int, drops: Callable[[bytes], bool]) -> None:
        self.port = 0
        self._target = target
        self._drops = drops

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        up, down = asyncio.ensure_future(_pass(reader, back)), asyncio.ensure_future(self._filter(there, writer))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            for end in (writer, back):
                end.transport.abort()

    async def _filter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            if b" 101 " not in head:
                await _pass(reader, writer)
            while True:
                begin = await reader.readexactly(2)
                size = begin[1] & 127
                more = await reader.readexactly({126: 2, 127: 8}.get(size, 0))
                body = await reader.readexactly(int.from_bytes(more, "big") if more else size)
                if not self._drops(body):
                    writer.write(begin + more + body)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)


@asynccontextmanager
async def lossy_proxy(target: int, drops: Callable[[bytes], bool]) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(target, drops)
    server = await asyncio.start_server(proxy.accept, HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
