"""Waiting for a condition with a deadline: what tests do in the place of sleeping."""

import asyncio
from collections.abc import Callable
from time import monotonic, sleep

_LOOK_AGAIN = 0.02


def wait_until(condition: Callable[[], object], what: str, timeout: float = 10, *, every: float = _LOOK_AGAIN) -> None:
    """Returns when `condition()` is true. Raises AssertionError with `what` after `timeout` seconds.

    `every`: seconds between two looks, for those that cost something."""
    deadline = monotonic() + timeout
    while not condition():
        assert monotonic() < deadline, f"not within {timeout} s: {what}"
        sleep(every)


async def until(condition: Callable[[], object], what: str, timeout: float = 10) -> None:
    """The same in an event loop."""
    deadline = monotonic() + timeout
    while not condition():
        assert monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(_LOOK_AGAIN)
