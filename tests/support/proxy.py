"""A TCP proxy that does to connections what a network does: cuts them, holds them up, loses one direction."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from local.ports import HOST


class Proxy:
    """Passes connections on to a port of this machine; `port` is its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._answering = _open()
        self._telling = _open()
        self._refusing = False
        #: Seconds by which whatever passes is late, either way.
        self.delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def mute(self) -> None:
        """Answers no longer come through, until `cut`; requests do."""
        self._answering.clear()

    def deafen(self) -> None:
        """Whoever subscribes is told nothing more, on new connections neither; commands are answered."""
        self._telling.clear()

    def halve(self) -> None:
        """As `mute` on the connections there are; new ones are whole."""
        self._answering.clear()
        self._answering = _open()

    def cut(self) -> None:
        """Ends all connections; new ones are whole again."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        self._answering = _open()

    def block(self) -> None:
        """Ends all connections and takes no new ones, until `unblock`."""
        self._refusing = True
        self.cut()

    def unblock(self) -> None:
        self._refusing = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            there, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        answers = [self._answering]

        def look_for_a_subscriber(data: bytes) -> None:
            if b"SUBSCRIBE" in data and self._telling not in answers:
                answers.append(self._telling)

        for task in (
            asyncio.create_task(self._pass_on(reader, back, (), look_for_a_subscriber)),
            asyncio.create_task(self._pass_on(there, writer, answers)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self,
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
                await asyncio.sleep(self.delay)
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


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
