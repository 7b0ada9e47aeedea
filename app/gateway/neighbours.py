"""Whether other nodes hear the broker; asked by one that does not, before it takes that for its own trouble (N1)."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from app.broker.base import Broker, BrokerUnavailable
from app.gateway.control import Control
from app.telemetry import logs

log = logs.get("neighbours")

#: How long an answer is waited for, in seconds.
PATIENCE = 1.0

#: How long an answer is kept for who asked, in seconds.
KEPT_FOR = 10.0


class Neighbours:
    """The question goes over the control channel, an answer into a key: whoever asks may be unable to hear one."""

    def __init__(
        self,
        broker: Broker,
        control: Control,
        unready: Callable[[], str | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`unready`: why this node takes nobody new, or None."""
        self._broker = broker
        self._control = control
        self._unready = unready
        self._spawn = spawn
        control.on_ask_hearing = self._asked

    async def hear(self) -> bool:
        """Whether another node hears and takes clients. A broker that does not answer is no sign of one."""
        question = secrets.token_hex(8)
        try:
            await self._broker.send_control(self._control.ask_hearing(question))
            await asyncio.sleep(PATIENCE)
            return await self._broker.take(_key(question)) is not None
        except BrokerUnavailable:
            return False

    def _asked(self, question: str) -> None:
        if self._unready() is None:
            self._spawn(self._answer(question))

    async def _answer(self, question: str) -> None:
        try:
            await self._broker.put(_key(question), b"1", KEPT_FOR)
        except BrokerUnavailable as error:
            log.info("neighbours.not_answered", reason=error.reason)  # it asks again


def _key(question: str) -> str:
    return f"hear:{question}"
