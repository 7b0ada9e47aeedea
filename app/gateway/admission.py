"""Who may come in, how many, how fast: decided before the handshake (N4)."""

from dataclasses import dataclass

from app.gateway.rates import Rate
from app.gateway.registry import Registry
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer to an upgrade. 503: this node cannot, another may; 429: this client has to wait."""

    status: int
    reason: str
    retry_after: int = 1


class Admission:
    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._rate = Rate(settings.connect_rate, settings.connect_burst)
        self._rate_state = 0.0

    def refusal(self, address: str, unready: str | None, now: float) -> Refusal | None:
        """Why an upgrade from `address` is refused, or None; who is not refused counts for the rate.

        `unready`: why the node takes nobody."""
        found = self.full(address, unready)
        if found is None:
            state = self._rate.next_state(self._rate_state, now)
            if state is None:
                return Refusal(503, "connect_rate")
            self._rate_state = state
        return found

    def full(self, address: str, unready: str | None) -> Refusal | None:
        """The same without the rate: for a second look at who has waited since."""
        settings = self._settings
        if unready is not None:
            return Refusal(503, unready)
        if settings.max_connections and len(self._registry) >= settings.max_connections:
            return Refusal(503, "max_connections")
        of_address = self._registry.by_address.get(address, 0)
        if settings.max_address_connections and of_address >= settings.max_address_connections:
            return Refusal(429, "max_address_connections", retry_after=10)
        return None
