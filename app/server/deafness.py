"""A node that alone hears nothing any more ends its pod, so that its clients go to where they are heard (N1)."""

import asyncio

from app.gateway.gateway import Gateway
from app.server.pod import Slot
from app.telemetry import logs

INTERVAL = 1.0  # seconds

log = logs.get("deafness")


class Deafness:
    """Runs as a task of the application's lifespan."""

    def __init__(self, gateway: Gateway, slot: Slot) -> None:
        self._gateway = gateway
        self._slot = slot
        self._after = gateway.settings.broker_drain_after

    async def run(self) -> None:
        """Until the pod has been told to end; it has one trigger for that, whoever pulls it."""
        while self._after:
            await asyncio.sleep(INTERVAL)
            if await self._gateway.is_deaf_alone(self._after):
                ends = self._slot.pod.end()
                log.error("deaf alone", deaf_for=round(self._gateway.broker.deaf_for, 1), pod_ends=ends)
                return
