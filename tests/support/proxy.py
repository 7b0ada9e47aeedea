"""A TCP proxy that can go silent in one direction, as a network does that has lost a connection half."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from local.ports import HOST


class Proxy:
    """Passes connections on to a port of this machine; `port` is its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._answering = asyncio.Event()
        self._answering.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def mute(self) -> None:
        """Answers no longer come through on the connections there are; requests do."""
        self._answering.clear()

    def cut(self) -> None:
        """Ends all connections; new ones are whole again."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        self._answering = asyncio.Event()
        self._answering.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        self._writers |= {writer, back}
        always = asyncio.Event()
        always.set()
        for task in (
            asyncio.create_task(_pass_on(reader, back, always)),
            asyncio.create_task(_pass_on(there, writer, self._answering)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: asyncio.Event) -> None:
    try:
        while data := await reader.read(65_536):
            await allowed.wait()
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.transport.abort()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    made = Proxy(target)
    server = await asyncio.start_server(made.accept, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.cut()
        server.close()
