"""What runs in an offload process: one pickled call after the other, until its node is gone. Imports none of ours."""

import ctypes
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import traceback
from typing import BinaryIO

#: Before each request and reply: the length of its pickle.
LENGTH = struct.Struct("!Q")
#: Before each reply, when the function has been found, its module imported: from now on its time counts.
BEGINS = b"\1"
PR_SET_PDEATHSIG = 1  # prctl(2)


class OffloadError(Exception):
    """The call could not be carried out: its parts cannot be pickled, or its process ended."""


def main() -> None:
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a function prints must not get between the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends us
    _end_with(int(sys.argv[1]))
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, calls), daemon=True).start()
    while True:
        reply = answer(calls.get(), replies)
        replies.write(LENGTH.pack(len(reply)))
        replies.write(reply)
        replies.flush()


def _end_with(parent: int) -> None:
    """The kernel's part: ends us also where a function never lets another thread run. Elsewhere `_read` has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _read(requests: BinaryIO, calls: "queue.SimpleQueue[bytes]") -> None:
    """Reads ahead, so that the end of the node is seen also during a call."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        calls.put(requests.read(LENGTH.unpack(head)[0]))
    os._exit(0)


def answer(request: bytes, replies: BinaryIO) -> bytes:
    """The pickled (whether it returned, its result or exception). Says BEGINS in between."""
    try:
        try:
            function, args, kwargs = pickle.loads(request)
        finally:
            replies.write(BEGINS)
            replies.flush()
        result = function(*args, **kwargs)
    except BaseException as error:
        return _failure(error)
    try:
        return pickle.dumps((True, result), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return _failure(OffloadError(f"the result of {function!r} cannot be sent back: {error}"))


def _failure(error: BaseException) -> bytes:
    error.add_note("In the offload process:\n" + "".join(traceback.format_exception(error)))
    try:
        if not isinstance(error, Exception):  # SystemExit and the like are not to end the node
            raise TypeError
        reply = pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
        pickle.loads(reply)  # many exceptions can be written but not read again
    except Exception:
        text = "".join(traceback.format_exception_only(error)).strip()
        reply = pickle.dumps((False, OffloadError(text)), pickle.HIGHEST_PROTOCOL)
    return reply


if __name__ == "__main__":
    # By its importable name, under which the node can read what is pickled here.
    from app.offload_process import main as importable_main

    importable_main()
