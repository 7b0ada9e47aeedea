"""The load client of one server: drives `native/load.c`."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from bench.dialect import Line


class LoadFailed(Exception):
    """The clients did not get what they must: a figure measured on that would be worth nothing."""


class Load:
    """Clients of the server on `port`. Members get publications, the publisher sends them, idle ones are just there."""

    def __init__(self, program: Path, name: str, port: int, ping: tuple[str, str] | None) -> None:
        """`name`: the server's, for what is said when something fails."""
        self._name = name
        self._folder = TemporaryDirectory(prefix="carillon-bench-")
        self._process = subprocess.Popen(
            [program, str(port), *(ping or ())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def _ask(self, *words: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise LoadFailed(f"the load client ended at: {words[0]}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _file(self, text: str) -> Path:
        file = Path(self._folder.name) / "input"
        file.write_text(text)
        return file

    def connect(self, role: str, lines: Iterable[Line], in_flight: int = 64, seconds: float = 120) -> dict[str, Any]:
        """Opens one connection for each line and goes through its script, `in_flight` of them at once."""
        text = "".join(line.text() + "\n" for line in lines)
        answer = self._ask("connect", role, self._file(text), in_flight, seconds)
        if answer["failed"]:
            raise LoadFailed(f"{self._name}: {answer['failed']} connections failed: {answer['failure']}")
        return answer

    def publish(
        self, count: int, template: str, *, window: int = 1, rate: float = 0, seconds: float = 60, whole: bool = True
    ) -> dict[str, Any]:
        """Publishes and waits for every delivery. `whole`: raises LoadFailed where one is missing or out of order."""
        answer = self._ask("publish", count, window, rate, self._file(template), seconds)
        lost = answer["expected"] - answer["delivered"]
        if answer["disordered"] or answer["closed"] or (whole and lost):
            raise LoadFailed(f"{self._name}: of {answer['expected']} deliveries {lost} are missing: {answer}")
        return answer

    def ask(self, count: int, in_flight: int, message: str, expected: str, seconds: float = 60) -> dict[str, Any]:
        """Members send `message` and wait for an answer that has `expected` in it, `count` times in all."""
        answer = self._ask("ask", count, in_flight, self._file(message), expected, seconds)
        if answer["answered"] != count:
            raise LoadFailed(f"{self._name}: of {count} commands {answer['answered']} were answered")
        return answer

    def stall(self, members: int) -> None:
        """The first members read no more; from now on nothing is expected of them."""
        self._ask("stall", members)

    def run(self, seconds: float) -> None:
        """Answers pings for a while. Raises LoadFailed where a connection was closed."""
        answer = self._ask("run", seconds)
        if answer["closed"]:
            raise LoadFailed(f"{answer['closed']} connections were closed")

    def frames(self) -> list[bytes]:
        """The compressed payloads of the last `publish`; every member got the same."""
        file = Path(self._folder.name) / "frames"
        self._ask("frames", file)
        data, frames = file.read_bytes(), []
        while data:
            size = int.from_bytes(data[:4], "little")
            frames.append(data[4 : 4 + size])
            data = data[4 + size :]
        return frames

    def close(self) -> None:
        """Closes all connections at once, without a close frame."""
        self._ask("close")
