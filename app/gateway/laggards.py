"""Clients that were sent away as too slow, again and again: a replay would only fill their outbox anew (R3)."""

from collections import OrderedDict
from hashlib import blake2b

#: Seconds within which a client's second close counts, and for which nothing is replayed to it then.
WHILE = 60.0

#: The most clients that are remembered; above it those are forgotten that were closed longest ago.
MOST = 10_000


def client_key(user: str, address: str) -> str:
    """What stays the same when a client connects again: another session, perhaps on another node."""
    return blake2b(f"{user}\n{address}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class Laggards:
    """Closes of the last minute in the whole cluster, by client. Times are those of the event loop, in seconds."""

    def __init__(self) -> None:
        # Client -> when it was closed last, and until when nothing is replayed to it.
        self._closed: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._closed)

    def closed(self, client: str, now: float) -> None:
        """The client was sent away as too slow (3008), by whichever node."""
        before, until = self._closed.pop(client, (-WHILE, 0.0))
        self._closed[client] = (now, now + WHILE if now - before < WHILE else until)
        while len(self._closed) > MOST or next(iter(self._closed.values()))[0] <= now - WHILE:
            self._closed.popitem(last=False)

    def given_up(self, client: str, now: float) -> bool:
        """Whether it was twice within a minute, the last time less than a minute ago."""
        return self._closed.get(client, (0.0, 0.0))[1] > now
