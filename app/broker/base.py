"""What carries publications between nodes: the interface that every broker implements."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.broker.stats import Stats
from app.codes import INTERNAL, CommandError


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a room's history; `("", 0)` in a room without history (P1)."""

    epoch: str
    offset: int


NO_POSITION = Position("", 0)

#: Seconds after which a session that was not refreshed stops counting as one of its user's.
USER_TTL = 60


@dataclass(frozen=True, slots=True)
class History:
    """How a room keeps history: `size` publications, `ttl` seconds after the last; `meta_ttl` seconds of meta (P5)."""

    size: int
    ttl: float
    meta_ttl: float


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a room's history, and the room's newest position at the moment of reading."""

    top: Position
    #: (offset, envelope), in the order asked for.
    publications: Sequence[tuple[int, bytes]]
    #: Whether `max_bytes` ended it.
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One session in a room."""

    user: str
    session: str


@dataclass(frozen=True, slots=True)
class Presence:
    """How a room keeps who is in it (A1): what a node says counts for `ttl` seconds.

    A user's leave is told to the room after `leave_delay` seconds; None: joins and leaves are not told. What falls into
    the same `batch` seconds is told together."""

    ttl: float
    leave_delay: float | None
    batch: float


@dataclass(frozen=True, slots=True)
class Attended:
    """`sessions`: how many of this node's are known to be in the room now; where that is wrong, it says the whole.

    `news_in`: seconds until there is something to tell to the room; then `attend` is called again. None: nothing."""

    sessions: int
    news_in: float | None


@dataclass(frozen=True, slots=True)
class Present:
    """Who is in a room, on all nodes: how many sessions and users, and some of them by name."""

    sessions: int
    users: int
    members: list[Member]


class BrokerUnavailable(CommandError):
    """The broker did not answer in time or refused; whether a publish took place is unknown (P4)."""

    def __init__(self, reason: str) -> None:
        super().__init__(INTERNAL, reason)


class Sink(Protocol):
    """What a broker tells its node. Called in the node's event loop; must not block and must not raise."""

    def publication(self, room: str, position: Position, envelope: bytes) -> None:
        """A publication in a room that this node is subscribed to. Position is NO_POSITION without history."""

    def presence_changed(self, room: str, news: bytes) -> None:
        """Users came into a room that this node is subscribed to, or left it: see `Broker.attend`."""

    def control(self, message: bytes) -> None:
        """A message from one node to all, its sender included."""

    def lost(self) -> None:
        """A subscriber connection is gone: publications may be missed from now on. May come again before `restored`."""

    def restored(self, rooms: Collection[str]) -> None:
        """These rooms are subscribed again after a loss; what came between was not heard.

        In a cluster it comes for each shard, and without `lost` for rooms that have moved to another one (R4)."""


class Broker(ABC):
    """One node's access to the broker. Every wait inside is bounded by `settings.broker_timeout`."""

    #: Whether several processes see each other through this broker.
    shared: bool = True

    #: What happened so far, for the metrics.
    stats: Stats

    @abstractmethod
    async def start(self, sink: Sink) -> None:
        """Begins to connect and returns at once: never fails or waits because something remote is away (N2)."""

    @abstractmethod
    async def stop(self) -> None:
        """Closes connections and ends every task of the broker."""

    @abstractmethod
    async def subscribe(self, room: str) -> None:
        """Returns when the broker has confirmed the subscription (R1). Raises BrokerUnavailable.

        The caller serialises subscribe and unsubscribe of one room."""

    @abstractmethod
    async def unsubscribe(self, room: str) -> None:
        """Stops hearing `room`; succeeds also while the broker is away."""

    @abstractmethod
    async def publish(
        self,
        room: str,
        envelope: bytes,
        *,
        history: History | None,
        idempotency_key: str | None = None,
        data: bytes | None = None,
    ) -> Position:
        """One atomic step (P2): idempotency check, offset, append, announce. `history` None: no offset, not kept.

        A repeated key answers the first result; with other `data` it raises CommandError 107 (P4). `data` is the part
        of the envelope that a repetition must repeat, None: all of it (a client that comes back has another session
        id in its envelope). Without history and key it is sent at most once (P1). Raises
        BrokerUnavailable where the outcome is unknown, CommandError 111 above `broker_max_pending`."""

    @abstractmethod
    async def read(
        self,
        room: str,
        history: History,
        *,
        since: int | None,
        limit: int,
        reverse: bool = False,
        max_bytes: int = 0,
    ) -> Page:
        """Publications after offset `since` (None: from the oldest); with `reverse` those before it (None: from the
        newest), newest first. At most `limit` (0: only the top), and no more than fit into `max_bytes` of envelopes
        (0: no bound), but for the first, which always comes.

        One atomic read of the primary (R1). Starts an epoch where there is none and refreshes the meta's life (P5);
        whether `since` is of this epoch, and whether all after it is still there, is for the caller to see. Raises
        BrokerUnavailable."""

    @abstractmethod
    async def send_control(self, message: bytes) -> None:
        """Delivers `message` to `Sink.control` of every node, at most once. Raises BrokerUnavailable."""

    @abstractmethod
    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keeps a value for `ttl` seconds where every node can take it (tickets). Raises BrokerUnavailable."""

    @abstractmethod
    async def take(self, key: str) -> bytes | None:
        """Removes and returns a kept value, for exactly one caller in the cluster. Raises BrokerUnavailable."""

    @abstractmethod
    async def admit_user(self, user: str, session: str, limit: int) -> bool:
        """Counts `session` as one of `user`'s, cluster-wide, unless there are `limit` already.

        A session that is not refreshed for `USER_TTL` stops counting (its node died). Raises BrokerUnavailable."""

    @abstractmethod
    async def refresh_users(self, sessions: Collection[tuple[str, str]]) -> None:
        """Says that these (user, session) pairs still live; called every 20 s."""

    @abstractmethod
    async def dismiss_user(self, user: str, session: str) -> None:
        """The session ended; never raises."""

    @abstractmethod
    async def attend(
        self,
        room: str,
        presence: Presence,
        *,
        came: Sequence[Member] = (),
        went: Sequence[str] = (),
        whole: bool = False,
    ) -> Attended:
        """Says which of this node's sessions came into a room and went out, in one atomic step; with neither, that the
        others are still there: due before `presence.ttl` is over, else they count as gone (A1).

        `whole`: those who came are all, whatever was said before. What is due is told to the room, by whichever node
        asks first: `Sink.presence_changed` gets a format version (P6) and JSON, `{"joined": [user], "left": [user]}`.
        A user joins with the first session and leaves with the last; who is back within `leave_delay` did neither.
        Raises BrokerUnavailable.

        The caller serialises these calls for one room."""

    @abstractmethod
    async def present(self, room: str, presence: Presence, limit: int) -> Present:
        """Who is in a room; at most `limit` of them by name. Raises BrokerUnavailable."""

    @abstractmethod
    async def revoke(self, entry: bytes, until: float, limit: int) -> bool:
        """Notes in the cluster's list of revocations, until a Unix time in seconds; once more only ever longer.

        False: there are `limit` entries already. Raises BrokerUnavailable."""

    @abstractmethod
    async def revoked(self) -> dict[bytes, float]:
        """The list: entry -> until. What is noted while it is read may be missing. Raises BrokerUnavailable."""

    @property
    @abstractmethod
    def echo_age(self) -> float:
        """Seconds since this node last heard, through the broker, something that it had sent itself.

        Infinity before the first time, 0 for a broker in process."""

    @property
    def deaf_for(self) -> float:
        """Seconds for which the broker has taken what this node sends to itself, while nothing of it came back.

        0 where the broker does not answer at all, as that is not this node's own trouble, and for a broker in process.
        Less than two intervals of the echo while all is well."""
        return 0.0

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether commands have a live connection at this moment, and all that was subscribed is."""
