"""Once a second: what this node is able to do, told to its pod (N1) and to the metrics."""

import asyncio

from app.gateway.gateway import Gateway
from app.server.pod import Slot, State
from app.telemetry import metrics
from app.telemetry.loop_lag import LoopLag

INTERVAL = 1.0  # seconds; a pod takes three without a heartbeat as a stalled worker


class Pulse:
    """Runs as a task of the application's lifespan."""

    def __init__(self, gateway: Gateway, slot: Slot) -> None:
        self._gateway = gateway
        self._slot = slot
        self._lag = LoopLag()

    async def run(self) -> None:
        self._lag.start()
        try:
            while True:
                self.beat()
                await asyncio.sleep(INTERVAL if self._slot.state is State.READY else INTERVAL / 5)
        finally:
            self._lag.stop()

    def beat(self) -> None:
        gateway = self._gateway
        state = self._state()
        self._slot.beat(state, gateway.broker.echo_age)
        # Of the pod: a worker that is missing or hangs says nothing itself (N1).
        metrics.READY.set(self._slot.pod.worst().ready)
        metrics.BROKER_CONNECTED.set(gateway.broker.connected)
        metrics.BROKER_ECHO_AGE.set(gateway.broker.echo_age)
        metrics.CONNECTIONS.set(len(gateway.registry))
        metrics.CONNECTION_CAPACITY.set(gateway.settings.max_connections)
        metrics.REVOCATIONS.set(len(gateway.revocations))
        metrics.ROOMS.set(len(gateway.hub.rooms))
        metrics.SUBSCRIPTIONS.set(sum(len(room.members) for room in gateway.hub.rooms.values()))
        for namespace, sessions in gateway.presence_sessions.items():
            metrics.PRESENCE_SESSIONS.labels(namespace).set(sessions)
        metrics.OUTBOX_BYTES.set(sum(session.outbox.size for session in gateway.slow if session.outbox))
        gateway.counters.history_holes = gateway.broker.stats.holes
        gateway.counters.flush()

    def _state(self) -> State:
        unready = self._gateway.unready()
        if unready is not None:
            return State[unready.upper()]
        if self._lag.worst > self._gateway.settings.max_loop_lag:
            return State.LAGGING
        return State.READY
