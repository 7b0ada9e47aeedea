"""What one node's protocols share: uvicorn's state, our settings, and the connections still sending a request head."""

from typing import Protocol

from uvicorn.server import ServerState

from app.gateway.rates import Rate
from app.settings import Settings
from app.telemetry.counters import Counters


class HalfOpen(Protocol):
    """A connection that is still sending a request head."""

    def head_timed_out(self) -> None:
        """It took too long: ends the connection."""


class NodeState(ServerState):
    """Given to each protocol as its `server_state`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.counters = Counters()
        #: Of one connection's frames that no session counts.
        self.aside_rate = Rate(settings.message_rate, settings.message_burst)
        #: From here on every HTTP response closes its connection.
        self.draining = False
        #: Connection -> when its request head must be complete (loop time). Oldest first: the timeout is one for all.
        self.half_open: dict[HalfOpen, float] = {}

    def sweep(self, now: float) -> None:
        """Ends the connections whose head took too long (H5); `now` is loop time. Free where none did."""
        late = []
        for connection, deadline in self.half_open.items():
            if deadline > now:
                break
            late.append(connection)
        for connection in late:
            connection.head_timed_out()
