"""An event loop whose time and every turn are the test's: nothing happens by itself, and no test waits."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """`loop.do(lambda: node.lost())`, then as many turns as are wanted, then `loop.advance(0.5)`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        #: What nobody has caught.
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now

    def do(self, action: Callable[[], Result]) -> Result:
        """Calls it in the loop, in a turn of its own."""

        async def call() -> Result:
            return action()

        done = self.create_task(call())
        self.turn()
        return done.result()

    def turn(self, times: int = 1) -> None:
        """What is ready now is called; what becomes ready by that is not, until the next turn."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

    def advance(self, seconds: float) -> None:
        """Time passes; what is due by then is called in the next turn."""
        self.now += seconds
