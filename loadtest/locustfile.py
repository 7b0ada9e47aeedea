"""What `locust -f` loads, in the master and in each worker: wires users, moments, figures and report together.

Run it by `python -m loadtest`, which checks the settings and the deployment first."""

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from locust import LoadTestShape, events, runners
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import plan as plans
from loadtest import report
from loadtest.figures import Figures, load, total
from loadtest.listener import Listener
from loadtest.share import SETTLE, Share
from loadtest.users import BroadcastListener, ChatUser, Publisher, StormListener

__all__ = ["BroadcastListener", "ChatUser", "Publisher", "StormListener"]

PLAN = plans.read(os.environ)
STORM, END = "carillon-storm", "carillon-end"
#: Seconds after the end of publishing in which every process must have told its figures.
PATIENCE = SETTLE + 15

#: Seconds between two reports of a worker: the end waits for the last one.
runners.WORKER_REPORT_INTERVAL = 1.0
Publisher.fixed_count = PLAN.publishers


class Whole:
    """What the processes have told, as far as the one that reports knows."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Figures, bool]] = {}

    def take(self, process: str, figures: Figures, settled: bool) -> None:
        self._parts[process] = figures, settled

    def figures(self) -> Figures:
        return total(figures for figures, _ in self._parts.values())

    def is_settled(self, processes: int) -> bool:
        return len(self._parts) >= processes and all(settled for _, settled in self._parts.values())


whole = Whole()
share: Share | None = None


class Course(LoadTestShape):
    """The course of a run: all clients come, publishing goes on for `duration` with storms in between, all settle."""

    def __init__(self) -> None:
        super().__init__()
        self._complete_at: float | None = None
        self._storms = PLAN.storms()
        self._ended_at: float | None = None
        events.spawning_complete.add_listener(self._complete)

    def _complete(self, **_: Any) -> None:
        self._complete_at = self._complete_at or monotonic()

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        users = PLAN.users + (PLAN.publishers if PLAN.over_http else 0)
        if self._complete_at is not None:
            now = monotonic() - self._complete_at
            while self._storms and now >= self._storms[0]:
                self._storms.pop(0)
                self.runner.send_message(STORM)
            if now >= PLAN.duration and self._ended_at is None:
                self._ended_at = now
                self.runner.send_message(END)
            if self._ended_at is not None and (self._is_settled() or now > self._ended_at + PATIENCE):
                return None
        return users, PLAN.ramp

    def _is_settled(self) -> bool:
        if share is not None:
            return share.is_settled
        assert isinstance(self.runner, MasterRunner)
        return whole.is_settled(self.runner.worker_count)


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    global share
    runner = environment.runner
    assert runner is not None
    if not isinstance(runner, MasterRunner):
        share = _join(runner, environment.events.request.fire)
    if not isinstance(runner, WorkerRunner):
        environment.events.quitting.add_listener(_judge)
        environment.events.quit.add_listener(_say)


def _join(runner: runners.Runner, fire: Callable[..., None]) -> Share:
    """This process has clients."""
    mine = Share(PLAN, runner.worker_index if isinstance(runner, WorkerRunner) else 0, fire)
    Listener.share = Publisher.share = mine
    runner.register_message(STORM, lambda **_: mine.storm())
    runner.register_message(END, lambda **_: mine.end())
    return mine


@events.report_to_master.add_listener
def _tell(data: dict[str, Any], **_: Any) -> None:
    if share is not None:
        data["carillon"] = share.figures.dump()
        data["carillon_settled"] = share.is_settled


@events.worker_report.add_listener
def _hear(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if "carillon" in data:
        whole.take(client_id, load(data["carillon"]), data["carillon_settled"])


def _figures() -> Figures:
    return share.figures if share is not None else whole.figures()


def _judge(environment: Environment, **_: Any) -> None:
    figures = _figures()
    if figures.wrong():
        environment.process_exit_code = 1
    page = environment.parsed_options.html_file if environment.parsed_options else None
    if page and Path(page).exists():
        report.insert(Path(page), report.section(PLAN, figures))


def _say(**_: Any) -> None:
    print(report.text(_figures()), flush=True)
