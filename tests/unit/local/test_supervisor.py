"""The supervisor over real processes: start, deaths, and every way to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "support" / "standin_supervisor.py"

#: A server: notes its process id, is ready, and ends at SIGTERM with a note in `ended`.
SERVER = "echo $$ >> NAME.pids; trap 'echo NAME >> ended; kill $!; exit 0' TERM; touch NAME.ready; sleep 60 & wait"
#: Does not hear SIGTERM.
STUBBORN = "echo $$ >> NAME.pids; trap '' TERM; touch NAME.ready; while :; do sleep 60; done"


class Running:
    """A supervisor in its own process, and what it left in its folder."""

    def __init__(self, folder: Path, stages: list[list[tuple[str, str]]], deadline: float) -> None:
        self.folder = folder
        named = [[(name, script.replace("NAME", name)) for name, script in stage] for stage in stages]
        self._out = (folder / "out").open("w")
        command = [sys.executable, str(PROGRAM), str(folder), json.dumps(named), str(deadline)]
        self.process = subprocess.Popen(command, stdout=self._out, env={**os.environ, "PYTHONPATH": str(ROOT)})

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.out, f"the supervisor says {text!r}")

    def pids(self, name: str) -> list[int]:
        """The process ids that this child has had, newest last."""
        file = self.folder / f"{name}.pids"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def ended(self) -> list[str]:
        file = self.folder / "ended"
        return file.read_text().split() if file.exists() else []

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._out.close()
        for file in self.folder.glob("*.pids"):
            wait_until(lambda name=file.stem: not any(map(alive, self.pids(name))), "nothing is left behind")


def alive(pid: int) -> bool:
    """Whether a process of this id runs; one that has ended and waits to be reaped does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


Supervise = Callable[..., Running]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    started: list[Running] = []

    def run(*stages: list[tuple[str, str]], deadline: float = 10) -> Running:
        started.append(Running(tmp_path, list(stages), deadline))
        return started[-1]

    yield run
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_stage_after_stage(supervise: Supervise, number: signal.Signals) -> None:
    running = supervise([("nginx", SERVER), ("pod", SERVER)], [("valkey", SERVER)])
    running.wait_for("ready")
    running.process.send_signal(number)
    assert running.process.wait(5) == 0
    assert sorted(running.ended()[:2]) == ["nginx", "pod"]
    assert running.ended()[2:] == ["valkey"]
    assert running.out.splitlines() == ["ready", "Stopping (Ctrl-C again: at once) ..."]


def test_children_have_sessions_of_their_own(supervise: Supervise) -> None:
    """The terminal's Ctrl-C must not reach them behind the supervisor's back."""
    running = supervise([("pod", SERVER)])
    running.wait_for("ready")
    [pid] = running.pids("pod")
    assert os.getsid(pid) == pid != os.getsid(running.process.pid)


def test_who_does_not_hear_is_killed_after_its_patience(supervise: Supervise) -> None:
    running = supervise([("pod", STUBBORN)], [("valkey", SERVER)])
    running.wait_for("ready")
    began = monotonic()
    running.process.terminate()
    assert running.process.wait(10) == 0
    assert 2 <= monotonic() - began < 9  # patience, a second SIGTERM, SIGKILL
    assert running.ended() == ["valkey"]


def test_a_second_ctrl_c_kills_at_once(supervise: Supervise) -> None:
    running = supervise([("pod", STUBBORN)])
    running.wait_for("ready")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("Stopping")
    began = monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(5) == 0
    assert monotonic() - began < 2, "its patience"


def test_a_second_sigterm_is_ignored(supervise: Supervise) -> None:
    """One kill of a process group comes twice: directly and through make."""
    slow = SERVER.replace(
        "echo NAME >> ended", "touch asked; while [ ! -e go ]; do sleep 0.02; done; echo NAME >> ended"
    )
    running = supervise([("pod", slow)])
    running.wait_for("ready")
    running.process.terminate()
    wait_until((running.folder / "asked").exists, "the pod was asked to end")
    running.process.terminate()
    (running.folder / "go").touch()
    assert running.process.wait(5) == 0
    assert running.ended() == ["pod"]


def test_a_dead_child_is_started_again_with_one_line_and_its_workers_are_swept(supervise: Supervise) -> None:
    """Workers whose master was killed would keep its port."""
    with_worker = "sleep 60 & echo $! >> worker.pids; " + SERVER
    running = supervise([("pod", with_worker), ("other", SERVER)])
    running.wait_for("ready")
    [first], [worker] = running.pids("pod"), running.pids("worker")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(running.pids("pod")) == 2, "the pod runs again")
    assert not alive(worker)
    assert len(running.pids("other")) == 1
    line = "pod was killed by SIGKILL; starting it again in 0.1 s"
    assert [text.startswith(line) for text in running.out.splitlines()] == [False, True]


def test_five_deaths_stop_everything(supervise: Supervise) -> None:
    dying = SERVER.replace("sleep 60 & wait", "while [ ! -e broken ]; do sleep 0.02; done; echo because >&2; exit 3")
    running = supervise([("pod", dying)], [("valkey", SERVER)])
    running.wait_for("ready")
    (running.folder / "broken").touch()
    assert running.process.wait(20) == 1
    assert running.out.count("pod ended with exit code 3; starting it again") == 4
    assert "pod ended with exit code 3: 5 deaths in 30 s.\nbecause" in running.out
    assert running.ended() == ["valkey"]


def test_a_death_before_all_is_ready_ends_the_start_with_the_log(supervise: Supervise) -> None:
    running = supervise([("pod", "echo CARILLON_X: no such setting; exit 1")], [("valkey", SERVER)])
    assert running.process.wait(5) == 1
    assert running.out == "pod ended with exit code 1 before all was ready:\nCARILLON_X: no such setting\n"


def test_what_is_never_ready_is_named(supervise: Supervise) -> None:
    running = supervise([("pod", SERVER.replace("touch", ": "))], [("valkey", SERVER)], deadline=0.3)
    assert running.process.wait(5) == 1
    assert running.out.startswith("Not ready after 0 s: pod (log: ")
    assert running.ended() == ["pod", "valkey"]


def test_a_signal_during_the_start_ends_it(supervise: Supervise) -> None:
    running = supervise([("pod", SERVER.replace("touch", ": "))])
    wait_until(lambda: running.pids("pod"), "the pod has started")
    running.process.terminate()
    assert running.process.wait(5) == 0
    assert running.ended() == ["pod"]


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_supervisor_leaves_nothing_behind(supervise: Supervise) -> None:
    running = supervise([("pod", SERVER)], [("valkey", SERVER)])
    running.wait_for("ready")
    running.process.kill()
    wait_until(lambda: sorted(running.ended()) == ["pod", "valkey"], "both were told to end")
