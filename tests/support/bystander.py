"""A member that does everything right, while others do not: what it hears, and how late."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from tests.support.client import Client
from tests.support.stack import Stack

T = TypeVar("T")

ROOM = "chat:bystander"


class Bystander:
    """`with Bystander(stack) as bystander: ...; bystander.hears()`; in a thread and a loop of its own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = Client(stack.ws_url, token=stack.token("bystander"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._published = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._client.open())
        self._run(self._client.subscribe(ROOM))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hears(self, padding: str = "") -> float:
        """Publishes over HTTP, and waits until it has heard that and all before, once and in order; in seconds."""
        began = time.monotonic()
        self._stack.publish(ROOM, [self._published, padding])
        self._published += 1
        heard = self._run(self._client.heard(ROOM, self._published))
        assert [number for number, _ in heard] == list(range(self._published))
        return time.monotonic() - began

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
