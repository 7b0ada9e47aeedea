"""The program that puts load on a cluster, here on pods and Nginx of this machine: what it says is true."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import NAMESPACE
from tests.support.stack import API_KEY, SECRET, Stack, StackFactory
from tests.support.waiting import wait_until

CLIENTS = 40
COMMAND = (sys.executable, "-m", "tests.deploy.load_program")


@pytest.fixture
def stack(make_stack: StackFactory) -> Stack:
    env = {f"CARILLON_NAMESPACES__{NAMESPACE.upper()}__HISTORY_SIZE": "10000", "CARILLON_DRAIN_TIMEOUT": "2"}
    return make_stack(pods=2, workers=1, env=env)


class Loaded:
    """The program, and how to ask it."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ

    def ask(self, word: str, status: int = 0) -> dict[str, Any]:
        asked = subprocess.run(
            [*COMMAND, "ask", word], env=self._environ, capture_output=True, text=True, timeout=50, check=False
        )
        assert asked.returncode == status, asked.stdout + asked.stderr
        told: dict[str, Any] = json.loads(asked.stdout)
        return told


@contextmanager
def loaded(stack: Stack, folder: Path) -> Iterator[Loaded]:
    environ = os.environ | {
        "CARILLON_TOKEN_HMAC_SECRET": SECRET,
        "CARILLON_API_KEYS": API_KEY,
        "LOAD_EDGE": f"127.0.0.1:{stack.port}",
        "LOAD_API": stack.pods[0].internal_url.removeprefix("http://"),
        "LOAD_CLIENTS": str(CLIENTS),
        "LOAD_SOCKET": str(folder / "load"),
    }
    program = subprocess.Popen([*COMMAND, "run"], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        wait_until((folder / "load").exists, "it can be asked", 20)
        yield Loaded(environ)
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0
    finally:
        program.kill()
        program.communicate()


def test_nothing_is_lost_while_a_pod_drains_and_every_close_has_a_frame(stack: Stack, tmp_path: Path) -> None:
    with loaded(stack, tmp_path) as load:
        begun = load.ask("begin")
        assert (begun["clients"], begun["open"]) == (CLIENTS, CLIENTS)
        assert sum(begun["pods"].values()) == CLIENTS
        moving = begun["pods"]["pod-2"]
        stack.stop_pod(2)
        told = load.ask("settle")
        assert told["flaws"] == {}, told["summary"]
        assert (told["rooms_that_lost_their_history"], told["refused"], told["unknown"]) == (0, 0, 0)
        assert told["closes"] == {"3001": moving}
        assert told["closes_without_a_frame"] == 0
        assert told["moves_most"] == 1
        assert told["pods"] == {"pod-1": CLIENTS}
        assert told["deliveries"] > told["accepted"]
        load.ask("begin")
        assert "a page has begun already" in load.ask("begin", status=1)["error"]


@pytest.mark.long
def test_a_pod_that_is_killed_leaves_closes_without_a_frame(stack: Stack, tmp_path: Path) -> None:
    """The check can fail."""
    with loaded(stack, tmp_path) as load:
        cut_off = load.ask("begin")["pods"]["pod-2"]
        stack.kill_pod(2)
        told = load.ask("settle")
        assert told["closes_without_a_frame"] == cut_off > 0
        assert told["flaws"] == {}, "what was missed is recovered"


@pytest.mark.long
def test_history_that_is_gone_is_told(stack: Stack, tmp_path: Path) -> None:
    with loaded(stack, tmp_path) as load:
        load.ask("begin")
        stack.restart_valkey()
        assert load.ask("settle")["rooms_that_lost_their_history"] > 0
