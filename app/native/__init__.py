"""The part in C: the send loop. Built where a compiler is present; without it the same is done in Python.

A plain shared library: it needs no headers of Python, and serves every version of it."""

import ctypes
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

_SOURCE = Path(__file__).with_name("send_loop.c")

_SEAL = 4  # bytes

#: (address of the sockets, their number, data, its size, address of room for what is unsent) -> how many are unsent.
Send = Callable[[int, int, bytes, int, int], int]


class BuildFailed(Exception):
    """The compiler is there and did not compile; its words."""


def library() -> Path:
    """Where the library is, or would be. Its name changes with the source, so an old one is never loaded."""
    return _SOURCE.with_name(f"send_loop-{zlib.crc32(_SOURCE.read_bytes()):08x}.so")


def compiler() -> str | None:
    """The C compiler of this machine."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build() -> Path | None:
    """Compiles the send loop, unless that was done. None: no compiler, or no Linux. Raises BuildFailed."""
    target = library()
    if _whole(target):
        return target
    program = compiler()
    if program is None or sys.platform != "linux":
        return None
    unfinished = target.with_suffix(f".{os.getpid()}")
    command = [program, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(unfinished), str(_SOURCE)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        _seal(unfinished)
        unfinished.replace(target)
    except subprocess.CalledProcessError as error:
        raise BuildFailed(error.stderr.strip()) from None
    except OSError as error:
        raise BuildFailed(str(error)) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _seal(file: Path) -> None:
    """Puts a checksum behind the library: the dynamic loader does not look there, and a cut one would crash it."""
    checksum = zlib.crc32(file.read_bytes()).to_bytes(_SEAL, "big")
    with file.open("ab") as end:
        end.write(checksum)


def _whole(file: Path) -> bool:
    try:
        data = file.read_bytes()
    except OSError:
        return False
    return len(data) > _SEAL and zlib.crc32(data[:-_SEAL]) == int.from_bytes(data[-_SEAL:], "big")


def load() -> Send | None:
    """The send loop, or None where it was not built, or is damaged."""
    target = library()
    if not _whole(target):
        return None
    try:
        send = ctypes.CDLL(str(target)).carillon_send
    except (OSError, AttributeError):  # built for another machine
        return None
    send.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_long, ctypes.c_void_p)
    send.restype = ctypes.c_int
    return send
