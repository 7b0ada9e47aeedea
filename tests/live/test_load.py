"""`make load` on real stacks: it finds nothing where nothing is lost, and counts what is."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtest import preflight
from loadtest.plan import LoadError, read
from local.ports import free_ports
from tests.support.lossy_proxy import lossy_proxy
from tests.support.stack import API_KEY, SECRET, Stack

ROOT = Path(__file__).parents[2]


@dataclass
class Ran:
    code: int
    output: str
    errors: str

    def figure(self, label: str) -> int:
        found = re.search(rf"^{re.escape(label)} \.+ (\d+)$", self.output, re.MULTILINE)
        assert found, self.output
        return int(found[1])

    @property
    def report(self) -> str:
        found = re.search(r"^Report: (.*)$", self.output, re.MULTILINE)
        assert found, self.output
        page = Path(found[1])
        try:
            return page.read_text("utf-8")
        finally:
            page.unlink()


async def load(*options: str, **environ: str) -> Ran:
    """`python -m loadtest`, what `make load` ends in, with these settings and no others."""
    kept = ("PATH", "HOME", "CARILLON_NGINX", "CARILLON_VALKEY")
    env = {name: value for name, value in os.environ.items() if name in kept} | environ
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtest",
        *options,
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return Ran(process.returncode or 0, output.decode(), errors.decode())


def quick() -> dict[str, str]:
    """The settings of `make load-quick`."""
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"^load-quick:.*?\n(?:.*\\\n)?\t+([A-Z].*) exec ", makefile, re.MULTILINE)
    assert found
    return dict(setting.split("=") for setting in found[1].split())


def target(stack: Stack, port: int) -> Mapping[str, str]:
    """What names a stack of the tests. Its namespace `demo` keeps history."""
    return {
        "URL": f"http://127.0.0.1:{port}",
        "API_URL": stack.url,
        "NAMESPACE": "demo",
        "CARILLON_TOKEN_HMAC_SECRET": SECRET,
        "CARILLON_API_KEYS": API_KEY,
    }


async def test_make_load_quick_finds_nothing_lost_on_a_stack_of_its_own() -> None:
    ran = await load(**quick())
    assert ran.code == 0, ran.output + ran.errors
    assert ran.figure("Clients") == ran.figure("... that said at the end what they have") == 90
    assert ran.figure("... in rooms with history") == 90
    assert ran.figure("Deliveries") > 200
    assert 0 < ran.figure("Connections that storms cut") == ran.figure("Came back and recovered") <= 30
    assert [ran.figure(what) for what in ("Lost", "Delivered twice", "Out of order")] == [0, 0, 0]
    for name in ("chat delivery", "broadcast delivery", "reconnect_storm delivery", "reconnect_storm reconnect"):
        assert re.search(rf"^WS +{name} +\d+ +0\(", ran.errors + ran.output, re.MULTILINE), name
    report = ran.report
    assert '<section id="carillon"' in report
    assert "Nothing was lost" in report
    assert "load-chat-" not in report, "names of rooms are no names of statistics"


@pytest.mark.parametrize(("namespace", "with_history"), [("demo", 4), pytest.param("chat", 0, marks=pytest.mark.long)])
async def test_what_vanishes_on_the_way_is_counted(stack: Stack, namespace: str, with_history: int) -> None:
    """With and without history: every seventh publication does not arrive."""
    seen = dropped = 0

    def drops(message: bytes) -> bool:
        nonlocal seen, dropped
        if b'"line"' not in message:
            return False
        seen += 1
        dropped += seen % 7 == 0
        return seen % 7 == 0

    async with lossy_proxy(stack.port, drops) as proxy:
        settings = {
            "SCENARIO": "broadcast",
            "USERS": "4",
            "RATE": "30",
            "RAMP": "10",
            "DURATION": "3",
            "PUBLISHERS": "1",
        }
        ran = await load(**target(stack, proxy.port) | settings | {"NAMESPACE": namespace})
    assert ran.code == 1, ran.output + ran.errors
    assert dropped
    # Without history, what vanished before the first and after the last one that a client heard is not known.
    assert dropped - (0 if namespace == "demo" else 8) <= ran.figure("Lost") <= dropped
    assert ran.figure("... in rooms with history") == with_history
    assert f"{ran.figure('Lost')} publications were lost" in ran.report


@pytest.mark.long
async def test_a_master_and_workers_count_together(stack: Stack) -> None:
    """As on many machines: `docs/load.md`."""
    port = str(free_ports(1)[0])
    env = dict(target(stack, stack.port)) | {"SCENARIO": "all", "USERS": "60", "PROCESSES": "2", "DURATION": "3"}
    master, *workers = await asyncio.gather(
        load("--master", "--expect-workers", "2", "--master-bind-port", port, **env),
        load("--worker", "--master-host", "127.0.0.1", "--master-port", port, **env),
        load("--worker", "--master-host", "127.0.0.1", "--master-port", port, **env),
    )
    assert [ran.code for ran in (master, *workers)] == [0, 0, 0], master.output + master.errors
    assert master.figure("Clients") == master.figure("... that said at the end what they have") == 60
    assert 0 < master.figure("Connections that storms cut") == master.figure("Came back and recovered") <= 20
    assert "Nothing was lost" in master.report
    assert [ran.output for ran in workers] == ["", ""], "only the master reports"


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        ((), {"SCENARIO": "chats"}, "SCENARIO=chats is none: there are chat, broadcast, reconnect_storm"),
        ((), {"CARILLON_PODS": "none"}, "CARILLON_PODS=none must be a whole number from 1 to 64"),
        (("--master",), {}, "URL is not set: master and workers need the same deployment"),
        (("--worker",), {}, "URL is not set: master and workers need the same deployment"),
    ],
)
async def test_what_cannot_begin_says_why_in_a_line(
    options: tuple[str, ...], environ: dict[str, str], says: str
) -> None:
    ran = await load(*options, **environ)
    assert (ran.code, ran.output) == (1, "")
    assert ran.errors.startswith(says)
    assert ran.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"URL": f"http://127.0.0.1:{free_ports(1)[0]}"}, "takes no client (ConnectionRefusedError)"),
        ({"CARILLON_TOKEN_HMAC_SECRET": "another-secret-that-is-long-enough"}, "is not the one of the deployment"),
        ({"NAMESPACE": "nobody"}, "NAMESPACE names none of the deployment's namespaces"),
        ({"CARILLON_API_KEYS": "wrong", "SCENARIO": "broadcast"}, "does not take the first key of CARILLON_API_KEYS"),
        (
            {"API_URL": f"http://127.0.0.1:{free_ports(1)[0]}", "SCENARIO": "broadcast"},
            "name the server API with API_URL",
        ),
        ({"NAMESPACE": "chat", "SCENARIO": "reconnect_storm"}, "reconnect_storm needs a namespace with history_size"),
    ],
)
def test_what_the_deployment_does_not_take_is_said_before_the_run(
    stack: Stack, wrong: dict[str, str], says: str
) -> None:
    with pytest.raises(LoadError, match=re.escape(says)) as raised:
        preflight.check(read({**target(stack, stack.port), **wrong}))
    assert "\n" not in str(raised.value)


def test_what_a_deployment_takes_passes(stack: Stack) -> None:
    preflight.check(read({**target(stack, stack.port), "SCENARIO": "all"}))
