"""Does with a unit what systemd would: its environment, credentials, folders and ExecStart, but no sandbox."""

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from local.stack import ROOT
from tests.support.waiting import wait_until

INSTALLED = "/opt/carillon/current"


def values(unit: Path, key: str) -> list[str]:
    """All that a unit says of a key, in order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text("utf-8"), re.MULTILINE)


class Service:
    """`with Service(unit, "1", folder, {"/etc/carillon/x.env": "A=1"}, {"api-keys": "..."}) as service: ...`

    ExecStart's program is replaced by `program`, as nothing is installed in /opt."""

    def __init__(
        self,
        unit: Path,
        instance: str,
        folder: Path,
        environment_files: Mapping[str, str],
        credentials: Mapping[str, str],
        program: Mapping[str, str],
    ) -> None:
        self._unit, self._instance, self._folder = unit, instance, folder
        self._runtime, self._credentials = folder / "run", folder / "credentials"
        for made in (self._runtime, self._credentials):
            made.mkdir()
        for name in self._said("RuntimeDirectory"):
            (self._runtime / name).mkdir(mode=int(values(unit, "RuntimeDirectoryMode")[0], 8))
        for credential in self._said("LoadCredential"):
            name, _, _source = credential.partition(":")
            (self._credentials / name).write_text(credentials[name], "utf-8")
        self.environment = dict(each.split("=", 1) for each in self._said("Environment"))
        for file in self._said("EnvironmentFile"):  # beats Environment=, as in systemd
            self.environment |= dict(line.split("=", 1) for line in environment_files[file].splitlines())
        (command,) = self._said("ExecStart")
        self._command = [program.get(word, word) for word in shlex.split(command)]

    def _said(self, key: str) -> list[str]:
        specifiers = {"i": self._instance, "l": "host", "d": str(self._credentials), "t": str(self._runtime)}
        return [re.sub(r"%([a-z])", lambda found: specifiers[found[1]], said) for said in values(self._unit, key)]

    def __enter__(self) -> Self:
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(self._folder / "notify"))
        self._notified.setblocking(False)
        log = (self._folder / "log").open("wb")
        # Nothing of the tests' own environment but the path, as under systemd.
        environ = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self._notified.getsockname()} | self.environment
        self._process = subprocess.Popen(self._command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        return self

    def started(self) -> Self:
        """Waits for READY=1. Raises AssertionError with the log where it ends instead."""
        wait_until(self._is_started, f"READY=1 of {self._unit.name}", timeout=40)
        return self

    def _is_started(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            return b"READY=1" in self._notified.recv(4096)
        except BlockingIOError:
            return False

    def log(self) -> str:
        return (self._folder / "log").read_text("utf-8")

    def status(self) -> int:
        """With which it ends by itself."""
        return self._process.wait(40)

    def runtime_files(self) -> list[Path]:
        return [path for path in self._runtime.rglob("*") if path.is_file()]

    def stop(self) -> int:
        """The exit status, after the unit's signal to the main process. Raises TimeoutExpired past TimeoutStopSec."""
        self._process.send_signal(signal.Signals[values(self._unit, "KillSignal")[0]])
        return self._process.wait(float(values(self._unit, "TimeoutStopSec")[0]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()  # its workers end with it (N5)
        self._process.wait()
        self._notified.close()
