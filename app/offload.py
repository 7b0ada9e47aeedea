"""CPU work of hooks in other processes, so that it does not hold up the event loop: `await offload(function, ...)`."""

import asyncio
import contextlib
import os
import pickle
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from app.codes import INTERNAL, TOO_MANY_REQUESTS, CommandError
from app.offload_process import BEGINS, LENGTH, OffloadError
from app.settings import Settings
from app.telemetry import metrics, multiprocess
from app.telemetry.counters import Counters

P = ParamSpec("P")
T = TypeVar("T")

#: How long a process may take to start and to import the function's module, in seconds.
START_TIMEOUT = 30.0

_pool: ContextVar["OffloadPool"] = ContextVar("carillon_offload_pool")


async def offload(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function(*args, **kwargs)` in one of this node's offload processes; for hooks.

    The function, a module's own (no lambda, no method of a connection), its arguments and its result are pickled: they
    are copies on the other side. What it raises is raised here, with the traceback as a note. Raises OffloadError;
    TimeoutError after `offload_timeout`, when the process is ended; CommandError 111 above `offload_pending`.
    Outside of hooks call `gateway.offload_pool.run(function, ...)`."""
    pool = _pool.get(None)
    if pool is None:
        raise RuntimeError("offload() is for hooks; elsewhere: await gateway.offload_pool.run(function, ...)")
    return await pool.run(function, *args, **kwargs)


def use(pool: "OffloadPool") -> None:
    """Makes `pool` the one that `offload` uses in the current context."""
    _pool.set(pool)


class OffloadPool:
    """At most `offload_workers` processes, started when first needed; each does one call at a time."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._timeout = settings.offload_timeout
        self._limit = settings.offload_workers + settings.offload_pending
        self._counters = counters
        self._turn = asyncio.Semaphore(settings.offload_workers)
        #: Calls that wait or run.
        self._pending = 0
        self._idle: list[Process] = []
        self._processes: set[Process] = set()
        self._closed = False

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `offload`."""
        if self._closed:
            raise CommandError(INTERNAL, "the node is going away")
        if self._pending >= self._limit:
            self._counters.limit_hits["offload_pending"] += 1
            raise CommandError(TOO_MANY_REQUESTS)
        request = _pickled(function, args, kwargs)
        began = time.perf_counter()
        self._pending += 1
        metrics.OFFLOAD_PENDING.inc()
        try:
            async with self._turn:
                result: T = _result(await self._reply(request, function))
                return result
        finally:
            self._pending -= 1
            metrics.OFFLOAD_PENDING.dec()
            metrics.OFFLOAD_SECONDS.observe(time.perf_counter() - began)

    async def _reply(self, request: bytes, function: Callable[..., Any]) -> bytes:
        """Sends the request to an idle process. One that does not answer properly is ended, and with it the call."""
        process: Process | None = None
        try:
            timer = asyncio.timeout(START_TIMEOUT)
            async with timer:
                process = await self._process()
                await _send(process, request)
                timer.reschedule(asyncio.get_running_loop().time() + self._timeout)
                reply = await _receive(process)
        except TimeoutError:
            raise TimeoutError(f"{_name(function)} took longer than {self._timeout} s in its process") from None
        except (asyncio.IncompleteReadError, OSError):
            raise OffloadError(f"the process of {_name(function)} could not start, or ended too early") from None
        else:
            self._idle.append(process)
            process = None
            return reply
        finally:
            if process is not None:  # also where the caller was cancelled: what nobody waits for is ended
                await self._end(process)

    async def _process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._processes.discard(process)  # it died meanwhile
        if self._closed:
            raise CommandError(INTERNAL, "the node is going away")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.offload_process", str(os.getpid()), stdin=PIPE, stdout=PIPE, env=_environment()
        )
        self._processes.add(process)
        return process

    async def _end(self, process: Process) -> None:
        self._processes.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def close(self) -> None:
        """Ends every process at once, and with it every call under way."""
        self._closed = True
        self._idle.clear()
        await asyncio.gather(*(self._end(process) for process in tuple(self._processes)))


async def _send(process: Process, request: bytes) -> None:
    """Returns when the function begins."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTH.pack(len(request)))
    process.stdin.write(request)
    await process.stdin.drain()
    await process.stdout.readexactly(len(BEGINS))


async def _receive(process: Process) -> bytes:
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)


def _environment() -> dict[str, str]:
    """Ours, and where to find modules. Metrics are not shared: two processes must not write into one slot's files."""
    environment = {name: value for name, value in os.environ.items() if name != multiprocess.DIRECTORY}
    return environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _pickled(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    try:
        return pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever an argument's own __reduce__ raises
        raise OffloadError(f"{_name(function)} or its arguments cannot be sent to a process: {error}") from error


def _result(reply: bytes) -> Any:
    try:
        returned, value = pickle.loads(reply)
    except Exception as error:
        raise OffloadError(f"the result cannot be read: {error}") from error
    if not returned:
        raise value
    return value


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
