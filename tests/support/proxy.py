"""A TCP proxy that can go silent in one direction, as a network does that has lost a connection half; and for
subscribers of Redis only."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from local.ports import HOST


class Proxy:
    """Passes connections on to a port of this machine; `port` is its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._answering = asyncio.Event()
        self._answering.set()
        self._telling = asyncio.Event()
        self._telling.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def mute(self) -> None:
        """Answers no longer come through on the connections there are; requests do."""
        self._answering.clear()

    def deafen(self) -> None:
        """Whoever subscribes is told nothing more, on new connections neither; commands are answered."""
        self._telling.clear()

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
        asks: list[asyncio.Event] = []
        answers = [self._answering]

        def look_for_a_subscriber(data: bytes) -> None:
            if b"SUBSCRIBE" in data and self._telling not in answers:
                answers.append(self._telling)

        for task in (
            asyncio.create_task(_pass_on(reader, back, asks, look_for_a_subscriber)),
            asyncio.create_task(_pass_on(there, writer, answers)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    gates: Sequence[asyncio.Event],
    look: Callable[[bytes], None] = lambda _: None,
) -> None:
    try:
        while data := await reader.read(65_536):
            look(data)
            for gate in gates:
                await gate.wait()
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
