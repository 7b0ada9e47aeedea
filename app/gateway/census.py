"""Which rooms have members in the whole cluster: asked of all nodes, answered within a moment."""

import asyncio
import secrets
from collections import Counter

from app.broker.base import Broker
from app.gateway.control import Control, RoomCounts

#: How long answers are waited for, in seconds.
PATIENCE = 0.5


class Census:
    """Questions of this node that are open."""

    def __init__(self, broker: Broker, control: Control) -> None:
        self._broker = broker
        self._control = control
        self._open: dict[str, list[RoomCounts]] = {}
        control.on_room_counts = self._note

    async def rooms(self) -> tuple[dict[str, int], int]:
        """Members by room, and how many nodes have answered. Raises BrokerUnavailable."""
        question = secrets.token_hex(8)
        answers = self._open[question] = []
        try:
            await self._broker.send_control(self._control.ask_rooms(question))
            await asyncio.sleep(PATIENCE)
        finally:
            del self._open[question]
        total: Counter[str] = Counter()
        for answer in answers:
            total.update(answer.rooms)
        return dict(total), len(answers)

    def _note(self, answer: RoomCounts) -> None:
        if answer.question in self._open:
            self._open[answer.question].append(answer)
