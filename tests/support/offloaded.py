"""What tests offload: functions of a module that a process imports in no time."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def add(a: int, b: int = 0) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def write_and_wait(path: Path, seconds: float = 30) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(seconds)


def hold_the_interpreter(path: Path) -> None:
    """As C code does that never lets another thread run."""
    path.write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(30)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


class NeedsTwo(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def raise_value_error() -> None:
    raise ValueError("too round")


def raise_what_cannot_be_read_again() -> None:
    raise NeedsTwo("a", "b")


def leave() -> None:
    sys.exit(3)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def give_a_lock() -> Any:
    return threading.Lock()


def chatter() -> str:
    print("between the replies?", flush=True)
    os.write(1, b"between the replies?")
    return sys.stdin.read() + "said"


def environment(name: str) -> str | None:
    return os.environ.get(name)
