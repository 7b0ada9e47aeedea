"""SIGHUP to the master: one worker after the other drains and is replaced, never all at once (N9).

gunicorn's own reload starts as many workers again and ends all old ones together.
"""

import signal
from typing import Any

from app.hosting import check_timeouts
from app.server.pod import PodState, State
from app.settings import Settings, SettingsError, load
from app.telemetry import logs

log = logs.get("master")


class RollingRestart:
    """Takes SIGHUP over from gunicorn's arbiter. `settings` are those of the workers still to come."""

    def __init__(self, arbiter: Any, pod: PodState, settings: Settings) -> None:
        self.settings = settings
        self._arbiter = arbiter
        self._pod = pod
        self._waiting: list[int] = []  # process ids, oldest first
        self._leaving: int | None = None
        self._manage_workers = arbiter.manage_workers
        arbiter.handle_hup = self.begin
        arbiter.handle_usr2 = self.refuse_upgrade
        arbiter.manage_workers = self.step

    def begin(self) -> None:
        """With wrong settings nothing happens but a log line for each."""
        try:
            settings = load()
            check_timeouts(settings, self._arbiter.cfg.graceful_timeout, self._arbiter.cfg.timeout)
        except SettingsError as error:
            for line in str(error).splitlines():
                log.error("restart refused: wrong settings", problem=line)
            return
        self.settings = settings
        workers = self._arbiter.WORKERS
        self._waiting = sorted(workers, key=lambda pid: workers[pid].age)
        log.info("rolling restart begins", workers=len(self._waiting))

    def refuse_upgrade(self) -> None:
        """Two masters cannot share the pod's memory, metrics and ports."""
        log.warning("SIGUSR2 is not supported: start another pod instead")

    def step(self) -> None:
        """Called by the arbiter at least once a second."""
        self._manage_workers()
        workers = self._arbiter.WORKERS
        self._waiting = [pid for pid in self._waiting if pid in workers]
        if not self._waiting or self._leaving in workers or len(workers) < self._arbiter.num_workers:
            return
        if any(slot.state in (State.STARTING, State.DRAINING) for slot in self._pod.live()):
            return
        self._leaving = self._waiting[0]
        self._arbiter.kill_worker(self._leaving, signal.SIGTERM)
