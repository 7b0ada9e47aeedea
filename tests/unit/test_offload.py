"""CPU work in other processes: what comes back, what is bounded, and that no process is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from prometheus_client import REGISTRY

from app.codes import CommandError
from app.gateway.client import Client
from app.offload import OffloadError, OffloadPool, offload
from app.settings import Settings
from app.telemetry import multiprocess
from app.telemetry.counters import Counters
from app.testing import CommandFailed, TestGateway
from tests.support.offloaded import (
    add,
    chatter,
    die,
    environment,
    give_a_lock,
    hold_the_interpreter,
    leave,
    pid,
    raise_value_error,
    raise_what_cannot_be_read_again,
    wait_for,
    write_and_wait,
)
from tests.support.waiting import until, wait_until

MakePool = Callable[..., OffloadPool]


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    """Makes pools with the given settings, and closes them."""
    pools: list[OffloadPool] = []

    def make(**settings: Any) -> OffloadPool:
        pools.append(OffloadPool(Settings(**settings), Counters()))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


def alive(pid: int) -> bool:
    """A process that has ended and waits for its parent counts as gone."""
    if sys.platform != "linux":
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    else:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].strip()
        except (FileNotFoundError, ProcessLookupError):
            state = ""
    return bool(state) and not state.startswith("Z")


# -- results and errors


async def test_arguments_go_and_the_result_comes_back(make_pool: MakePool) -> None:
    pool = make_pool()
    assert await pool.run(add, 1, b=2) == 3
    assert await pool.run(len, b"x" * 5_000_000) == 5_000_000
    assert len(await pool.run(bytes, 5_000_000)) == 5_000_000


async def test_it_is_another_process_started_once(make_pool: MakePool) -> None:
    pool = make_pool()
    first = await pool.run(pid)
    assert first != os.getpid()
    assert await pool.run(pid) == first


async def test_what_the_function_raises_is_raised_here(make_pool: MakePool) -> None:
    with pytest.raises(ValueError, match="too round") as raised:
        await make_pool().run(raise_value_error)
    assert "in raise_value_error" in raised.value.__notes__[0]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (raise_what_cannot_be_read_again, "NeedsTwo: a b"),
        (leave, "SystemExit: 3"),
        (give_a_lock, "the result of .*give_a_lock.* cannot be sent back: cannot pickle"),
        (lambda: None, "lambda.* or its arguments cannot be sent to a process"),
        (die, "the process of die could not start, or ended too early"),
    ],
    ids=["exception cannot be read", "exit", "result cannot be pickled", "lambda", "killed"],
)
async def test_what_cannot_come_back_is_told_and_harms_no_other_call(
    make_pool: MakePool, function: Callable[[], Any], text: str
) -> None:
    pool = make_pool(offload_workers=1)
    with pytest.raises(OffloadError, match=text):
        await pool.run(function)
    assert await pool.run(add, 1) == 1


async def test_a_process_that_died_between_calls_is_replaced(make_pool: MakePool) -> None:
    pool = make_pool(offload_workers=1)
    first = await pool.run(pid)
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first), "the process is gone")
    await until(lambda: all(process.returncode is not None for process in pool._idle), "the loop has noticed")
    assert await pool.run(pid) != first


async def test_prints_do_not_get_between_replies(make_pool: MakePool) -> None:
    pool = make_pool(offload_workers=1)
    assert [await pool.run(chatter), await pool.run(add, 1)] == ["said", 1]


async def test_metrics_of_the_node_are_not_written_by_its_processes(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(multiprocess.DIRECTORY, "/nowhere")
    assert await make_pool().run(environment, multiprocess.DIRECTORY) is None


# -- bounds


async def test_calls_run_side_by_side_up_to_the_number_of_processes(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(offload_workers=2)
    waiting = [asyncio.ensure_future(pool.run(wait_for, tmp_path / "go")) for _ in range(2)]
    third = asyncio.ensure_future(pool.run(add, 1))
    done, _ = await asyncio.wait((third,), timeout=0.2)
    assert not done
    assert len(pool._processes) == 2
    (tmp_path / "go").touch()
    await asyncio.gather(*waiting)
    assert await third == 1


async def test_too_many_calls_are_refused(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(offload_workers=1, offload_pending=2)
    calls = [asyncio.ensure_future(pool.run(wait_for, tmp_path / "go")) for _ in range(3)]
    await asyncio.sleep(0)
    assert REGISTRY.get_sample_value("carillon_offload_pending") == 3
    with pytest.raises(CommandError, match="111 too many requests"):
        await pool.run(add, 1)
    assert pool._counters.limit_hits == {"offload_pending": 1}
    (tmp_path / "go").touch()
    await asyncio.gather(*calls)
    assert REGISTRY.get_sample_value("carillon_offload_pending") == 0
    assert await pool.run(add, 1) == 1


@pytest.mark.parametrize("hang", [write_and_wait, hold_the_interpreter])
async def test_a_call_that_hangs_is_ended_with_its_process(
    make_pool: MakePool, tmp_path: Path, hang: Callable[[Path], None]
) -> None:
    pool = make_pool(offload_workers=1, offload_timeout=0.5)
    other = make_pool()
    bystander = await other.run(pid)
    with pytest.raises(TimeoutError, match=rf"{hang.__name__} took longer than 0\.5 s"):
        await pool.run(hang, tmp_path / "pid")
    assert not alive(int((tmp_path / "pid").read_text()))
    assert await other.run(pid) == bystander
    assert await pool.run(add, 1) == 1


async def test_the_process_of_a_cancelled_call_is_ended(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(offload_workers=1)
    call = asyncio.ensure_future(pool.run(write_and_wait, tmp_path / "pid"))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the call has begun")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not alive(int((tmp_path / "pid").read_text()))
    assert await pool.run(add, 1) == 1


# -- the end


async def test_close_ends_the_processes_and_the_calls(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(offload_workers=1)
    running = asyncio.ensure_future(pool.run(write_and_wait, tmp_path / "pid"))
    waiting = asyncio.ensure_future(pool.run(add, 1))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the call has begun")
    await pool.close()
    assert not alive(int((tmp_path / "pid").read_text()))
    with pytest.raises(OffloadError, match="ended too early"):
        await running
    for call in (waiting, pool.run(add, 1)):
        with pytest.raises(CommandError, match="the node is going away"):
            await call


NODE = """
import asyncio, sys
from pathlib import Path
from app.offload import OffloadPool
from app.settings import Settings
from app.telemetry.counters import Counters
from tests.support import offloaded

async def main():
    pool = OffloadPool(Settings(), Counters())
    await pool.run(getattr(offloaded, sys.argv[1]), *map(Path, sys.argv[2:]))

if sys.argv.pop(1) == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("busy", ["write_and_wait", "hold_the_interpreter"])
def test_processes_end_with_a_node_that_is_killed(tmp_path: Path, loop: str, busy: str) -> None:
    script, started = tmp_path / "node.py", tmp_path / "pid"
    script.write_text(NODE)
    with subprocess.Popen(
        [sys.executable, script, loop, busy, started], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ) as node:
        try:
            wait_until(lambda: started.exists() and started.read_text(), "the call has begun")
        finally:
            node.kill()
    wait_until(lambda: not alive(int(started.read_text())), "the process has ended")


async def test_ctrl_c_is_for_the_node_alone(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    call = asyncio.ensure_future(pool.run(wait_for, tmp_path / "go"))
    await until(lambda: pool._processes, "a process")
    process = await pool.run(pid)
    os.kill(process, signal.SIGINT)
    assert await pool.run(pid) == process
    (tmp_path / "go").touch()
    await call


def test_it_works_on_uvloop() -> None:
    async def main() -> None:
        pool = OffloadPool(Settings(offload_timeout=0.5), Counters())
        assert await pool.run(len, b"x" * 1_000_000) == 1_000_000
        with pytest.raises(TimeoutError):
            await pool.run(time.sleep, 30)
        assert await pool.run(add, 1) == 1
        await pool.close()

    uvloop.run(main())


# -- in hooks


def hooking(on_rpc: Callable[[Client, str, Any], Awaitable[Any]]) -> object:
    return SimpleNamespace(on_rpc=on_rpc)


async def test_a_hook_offloads(tmp_path: Path) -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        return await (offload(add, data, b=1) if method == "add" else offload(raise_value_error))

    async with TestGateway(hooking(on_rpc)) as node:
        ann = await node.connect()
        assert await ann.rpc("add", 1) == 2
        with pytest.raises(CommandFailed, match="error 100, on_rpc failed"):
            await ann.rpc("raise")
        [process] = node.gateway.offload_pool._processes
        assert alive(process.pid)
    assert not alive(process.pid)


async def test_a_hook_that_takes_too_long_leaves_no_work_behind(tmp_path: Path) -> None:
    async def on_rpc(client: Client, method: str, data: Any) -> Any:
        await offload(write_and_wait, tmp_path / "pid")

    async with TestGateway(hooking(on_rpc), hook_timeout=0.5) as node:
        await node.gateway.offload_pool.run(add, 1)  # a process has started
        ann, bob = await node.connect("ann"), await node.connect("bob")
        call = asyncio.ensure_future(ann.rpc("x"))
        await bob.ping()
        with pytest.raises(CommandFailed, match="error 100, on_rpc took too long"):
            await call
        assert not alive(int((tmp_path / "pid").read_text()))


async def test_outside_of_hooks_it_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"gateway\.offload_pool\.run"):
        await offload(add, 1)
