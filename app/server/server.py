"""One node's server: uvicorn's, with a drain before its stop and a listener that closes last (N3, N5)."""

import asyncio
import gc
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol, cast, runtime_checkable

import uvicorn
from uvicorn.config import Config

from app.hosting import NOTIFY_INTERVAL
from app.server.http_protocol import HttpProtocol
from app.server.pod import Slot
from app.server.state import NodeState
from app.server.websocket_protocol import WebSocketProtocol
from app.telemetry import logs
from app.telemetry.process import ProcessMetrics

# What may come after the drain, in seconds; together less than the five that gunicorn grants (N5).
DRAIN_OVERRUN = 0.5  # how much longer than promised the gateway's drain may take
LATE_REQUESTS = 1.0  # for requests that came in while the listener closed
LAST_ANSWERS = 1.0  # for responses and tasks under way
QUICK_ANSWERS = 0.2  # the same after SIGINT
LIFESPAN = 2.0  # for the application's own shutdown
AFTER_DRAIN = DRAIN_OVERRUN + LATE_REQUESTS + LAST_ANSWERS + LIFESPAN

ORPHAN_DRAIN = 2.0  # seconds; without a master nobody restarts the pod before the port is free
LATE_ACCEPTS = 4096  # connections taken from a closing listener

log = logs.get("server")


@runtime_checkable
class Drains(Protocol):
    """What the application puts into its lifespan state as `gateway`."""

    async def drain(self, timeout: float) -> None:
        """Closes all sessions with a goodbye; refuses new ones from its first moment."""


class Server(uvicorn.Server):
    """SIGTERM drains, a second one changes nothing; SIGINT and SIGQUIT end it at once."""

    server_state: NodeState

    def __init__(
        self, config: Config, state: NodeState, slot: Slot, *, notify: Callable[[], None], master: int
    ) -> None:
        """`notify` tells gunicorn that we live; `master` is its process id."""
        super().__init__(config)
        self.server_state = state
        self._settings = state.settings
        self._slot = slot
        self._notify = notify
        self._master = master
        self._listeners: Sequence[socket.socket] = ()
        self._drain_asked = False
        self._drain: asyncio.Task[None] | None = None
        self._process = ProcessMetrics()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Runs until a signal. `sockets` are open listeners, which belong to the server from now on."""
        self._listeners = sockets or ()
        for listener in self._listeners:
            self._bound_send_buffer(listener)
        notifying = asyncio.create_task(self._keep_notifying())
        try:
            with self.capture_signals():
                # Duplicates, so that uvicorn can stop to accept while the listeners stay open.
                await self._serve([listener.dup() for listener in self._listeners])
        finally:
            notifying.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """What is there by now stays to the end: the collector need not look at it again, 50 ms long each time."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """The handlers stay to the end of the process: a SIGTERM after the drain must not kill it."""
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(sig, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM:
            self.should_exit = self.force_exit = True
        elif not self._drain_asked:
            self._drain_asked = True
            # Bounds the whole also where no master is left to do it: the default action ends the process.
            signal.alarm(math.ceil(self._settings.drain_delay + self._settings.drain_timeout + AFTER_DRAIN) + 1)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        ends = await super().on_tick(counter)
        self.server_state.sweep(asyncio.get_running_loop().time())
        if counter % 10 == 0:
            self.server_state.counters.flush()
            self._process.update()
        if self._orphan:  # where the kernel does not say so with a SIGTERM
            self._drain_asked = True
        if self._drain_asked and self._drain is None:
            self._drain = asyncio.create_task(self._drain_sessions())
        return ends or (self._drain is not None and self._drain.done())

    @property
    def _orphan(self) -> bool:
        return os.getppid() != self._master

    async def _keep_notifying(self) -> None:
        """Until the very end: gunicorn kills a worker that is silent for `timeout` seconds, also in its drain (N5)."""
        while True:
            self._notify()
            await asyncio.sleep(NOTIFY_INTERVAL)

    async def _drain_sessions(self) -> None:
        self.server_state.draining = True
        self._slot.drain()
        if not self._orphan:
            await asyncio.sleep(self._settings.drain_delay)
        timeout = min(self._settings.drain_timeout, ORPHAN_DRAIN) if self._orphan else self._settings.drain_timeout
        started = time.monotonic()
        log.info("drain begins", timeout=timeout, connections=len(self.server_state.connections))
        gateway = self.lifespan.state.get("gateway")
        if isinstance(gateway, Drains):
            try:
                async with asyncio.timeout(timeout + DRAIN_OVERRUN):
                    await gateway.drain(timeout)
            except TimeoutError:
                log.warning("drain took too long", timeout=timeout)
            except Exception:
                log.exception("drain failed")
        log.info("drain is over", seconds=round(time.monotonic() - started, 3))

    def _bound_send_buffer(self, listener: socket.socket) -> None:
        """For the connections to come, which take it over from their listener: else megabytes go out before a client
        that does not read is noticed (O1)."""
        if self._settings.send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """After the drain, or at once. Aborts what is left in the end."""
        state = self.server_state
        state.draining = True
        await self._close_listeners()
        if not self.force_exit:
            for connection in state.connections.difference(state.half_open):
                connection.shutdown()
            await self._settle(lambda: not state.half_open, LATE_REQUESTS)
        for connection in list(state.connections):
            connection.shutdown()
        quiet = QUICK_ANSWERS if self.force_exit else LAST_ANSWERS
        await self._settle(lambda: not state.connections and not state.tasks, quiet)
        for connection in list(state.connections):
            cast("HttpProtocol | WebSocketProtocol", connection).abort()
        for task in list(state.tasks):
            task.cancel()
        try:
            async with asyncio.timeout(LIFESPAN):
                await self.lifespan.shutdown()
        except TimeoutError:
            log.warning("the application's shutdown took too long", timeout=LIFESPAN)
        state.counters.flush()

    async def _close_listeners(self) -> None:
        """A listener that closes resets what waits in its queue, so the queue is emptied first (N3)."""
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for listener in self._listeners:
            if not self.force_exit:
                waiting += _accept_all(listener)
            listener.close()
        for connection in waiting:
            with suppress(OSError):  # it has gone again
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol_class = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return protocol_class(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _settle(self, settled: Callable[[], bool], timeout: float) -> None:
        end = time.monotonic() + timeout
        while not settled() and time.monotonic() < end:  # noqa: ASYNC110 - uvicorn's sets give no event
            await asyncio.sleep(0.02)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accepts until EAGAIN."""
    accepted: list[socket.socket] = []
    with suppress(OSError):  # EAGAIN: none is left; EMFILE: no more can be taken
        while len(accepted) < LATE_ACCEPTS:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted
