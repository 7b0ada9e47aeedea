"""One server process of the stack: started in a session of its own, and never left behind."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from local.errors import LocalError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Service:
    """What to run, how to know that it answers, and how to end it."""

    name: str
    command: tuple[str, ...]
    log: Path
    #: Whether it serves already; short and without exceptions.
    is_ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    #: Where it runs.
    folder: Path = Path()
    #: The signal that ends it in peace, and how many seconds it may take until it is told again, louder.
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 2.0


class Child:
    """The process of a service; may be started again after it ended."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Starts the process; its output is appended to the log. Raises LocalError where it cannot be started."""
        parent = os.getpid()

        def begin() -> None:
            # A shell in the background ignores these for all that it starts, and sh could not trap them.
            for ignored in (signal.SIGINT, signal.SIGQUIT):
                signal.signal(ignored, signal.SIG_DFL)
            # kill -9 of the supervisor must not leave servers behind. SIGTERM, so that masters end their workers.
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != parent:
                    os._exit(1)

        with self.service.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.service.command,
                    env=dict(self.service.env),
                    cwd=self.service.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the terminal's Ctrl-C reaches the supervisor alone
                    preexec_fn=begin,
                )
            except OSError as error:
                raise LocalError(f"{self.service.name} cannot be started: {error}") from None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative: the signal. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        assert self._process is not None
        return self._process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Signals the process itself (a master, which tells its workers); nothing where it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def sweep(self) -> None:
        """Kills all that is left of the session: workers whose master was killed would keep its port."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.service.log.read_text("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""


def stop(children: list[Child]) -> None:
    """Ends children that belong to one stage: each gets its stop signal in the order given, then all are waited for.

    Whoever outlives its patience gets SIGTERM, and a second later SIGKILL; at the end nothing of them is left."""
    for child in children:
        child.signal(child.service.stop_signal)
    patience = max((child.service.patience for child in children), default=0)
    _wait_for_all(children, patience)
    for child in children:
        if child.running:
            child.signal(signal.SIGTERM)
    _wait_for_all(children, 1)
    for child in children:
        child.sweep()
        if child.pid:
            child.wait()


def _wait_for_all(children: list[Child], patience: float) -> None:
    deadline = monotonic() + patience
    while any(child.running for child in children) and monotonic() < deadline:
        sleep(0.02)
