"""What the server API takes and answers; the OpenAPI document is made from these types."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from app.http.body import Call
from app.http.errors import Problem
from app.wire.messages import PastPublication

RoomName = Annotated[
    str,
    Meta(
        min_length=1,
        description="Namespace, colon, name; without spaces, braces and control characters.",
        examples=["chat:lobby"],
    ),
]
User = Annotated[str, Meta(min_length=1, max_length=255, examples=["ann"])]
Key = Annotated[str, Meta(min_length=1, max_length=128, description="A repetition publishes nothing (P4).")]
ConflationKey = Annotated[str, Meta(min_length=1, max_length=64, description="For `slow_consumer = conflate`.")]
#: Every subscriber gets them, and they are not counted as data: they have to be small.
Tags = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=256)]], Meta(max_length=16)
]
UnixTime = Annotated[float, Meta(ge=0, le=10**11, description="Seconds since 1970.")]
Rooms = Annotated[list[RoomName], Meta(min_length=1, max_length=1000)]

#: Commands of one batch.
MAX_BATCH = 1000


class Publish(Call):
    """One publication. `data` is any JSON value; it reaches clients as it stands here."""

    room: RoomName
    data: Raw
    idempotency_key: Key | None = None
    key: ConflationKey | None = None
    tags: Tags | None = None


class Broadcast(Call):
    """The same data to many rooms; an idempotency key holds for each room by itself."""

    rooms: Rooms
    data: Raw
    idempotency_key: Key | None = None
    key: ConflationKey | None = None
    tags: Tags | None = None


class SendToUser(Call):
    """A message to every session of a user, at most once; it arrives in the room `#` and the user."""

    user: User
    data: Raw


class Disconnect(Call):
    """Ends a user's sessions, or one of them: close 3503, or 3011 with `reconnect`."""

    user: User
    session: str | None = None
    reconnect: bool = False


class Unsubscribe(Call):
    """Takes a user's sessions, or one of them, out of a room; each is told `unsubscribed` (3503). What they may do
    stays: take the right first, where it is for good."""

    user: User
    room: RoomName
    session: str | None = None


class Refresh(Call):
    """New rights for a user's sessions, or one of them, on whichever node: all of a `token` of the same user; or some
    of `expires_at` (null: never), `rooms`, `publish`, the others stay; or `expired`: close 3005, come back with a new
    token. Rooms that are not allowed any more are left, with `unsubscribed`. A client that still holds an older token
    can bring its rights back with it: revoke that one too."""

    user: User
    session: str | None = None
    token: str | None = None
    expires_at: UnixTime | UnsetType | None = UNSET
    rooms: tuple[str, ...] | UnsetType = UNSET
    publish: tuple[str, ...] | UnsetType = UNSET
    expired: bool = False


class Revoke(Call):
    """Makes tokens worthless before they expire: the one with that `jti`, or all of a `user` that were issued before a
    moment (`iat`; absent: now). Their sessions end with 3500, and every node refuses them until `expires_at`, when they
    have expired anyway (absent: `revocation_ttl` from now). Error 106: there are 100,000 already."""

    jti: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    user: User | None = None
    issued_before: UnixTime | None = None
    expires_at: UnixTime | None = None


class Command(Call):
    """One command of a batch: exactly one of the fields."""

    publish: Publish | None = None
    broadcast: Broadcast | None = None
    send_to_user: SendToUser | None = None
    disconnect: Disconnect | None = None
    unsubscribe: Unsubscribe | None = None
    refresh: Refresh | None = None
    revoke: Revoke | None = None
    presence: "Presence | None" = None
    history: "History | None" = None

    @property
    def reads(self) -> bool:
        """Whether its answer may be large."""
        return self.presence is not None or self.history is not None


class Batch(Call):
    """Commands that are carried out in order; one that fails does not stop the others. After 4 MiB of presence and
    history, further ones are answered with error 106."""

    commands: Annotated[list[Command], Meta(max_length=MAX_BATCH)]


class Presence(Call):
    """Who is in a room: how many, and at most `limit` of them by name. Error 108 where the namespace keeps none."""

    room: RoomName
    limit: Annotated[int, Meta(ge=0)] | None = None


class Since(Struct, forbid_unknown_fields=True):
    """A position."""

    epoch: str
    offset: Annotated[int, Meta(ge=0, le=2**53)]


class History(Call):
    """What a room keeps, the oldest first: `limit` publications at most, after `since`; with `reverse` those before it,
    the newest first. A page ends at `history_page` publications and half of `outbox_bytes`; `limit` 0 asks for the
    position only."""

    room: RoomName
    limit: Annotated[int, Meta(ge=0)] | None = None
    since: Since | None = None
    reverse: bool = False


class Ticket(Call):
    """Whom a one-time ticket lets in. `ttl`: seconds that the session may last; absent: for ever."""

    user: User
    rooms: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    ttl: Annotated[float, Meta(gt=0, le=10**9)] | None = None


class Published(Struct):
    """Where the publication stands; `""` and 0 in a room without history."""

    epoch: str
    offset: int


class HistoryPage(Struct):
    """The room's newest position when it was read, and publications in the order asked for."""

    epoch: str
    offset: int
    publications: list[PastPublication]


class RoomResult(Struct, omit_defaults=True):
    """One room of a broadcast: a position or an error."""

    room: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class Broadcasted(Struct):
    """In the order of the rooms asked for."""

    results: list[RoomResult]


class Done(Struct):
    """Carried out; there is nothing to tell."""


class Outcome(Struct, omit_defaults=True):
    """One command of a batch: what it would have answered alone."""

    publish: Published | UnsetType = UNSET
    broadcast: Broadcasted | UnsetType = UNSET
    send_to_user: Done | UnsetType = UNSET
    disconnect: Done | UnsetType = UNSET
    unsubscribe: Done | UnsetType = UNSET
    refresh: Done | UnsetType = UNSET
    revoke: Done | UnsetType = UNSET
    presence: "Present | UnsetType" = UNSET
    history: HistoryPage | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class Outcomes(Struct):
    """In the order of the commands."""

    results: list[Outcome]


class Member(Struct):
    """One session in a room."""

    user: str
    session: str


class Present(Struct):
    """Who is in a room, on all nodes. `members`: some of them, `presence_page` at most."""

    sessions: int
    users: int
    members: list[Member]


class RoomCount(Struct):
    """A room and how many sessions are in it, on all nodes that answered."""

    room: str
    members: int


class RoomList(Struct):
    """The largest rooms first. `nodes`: how many workers have answered in time."""

    rooms: list[RoomCount]
    nodes: int


class TicketIssued(Struct):
    """To be used once, as `/ws?ticket=...`, within `expires_in` seconds."""

    ticket: str
    expires_in: float


#: An example request for each type, by its name; tests send them.
EXAMPLES: dict[str, Any] = {
    "Publish": {"room": "chat:lobby", "data": {"text": "hello"}, "idempotency_key": "order-4711"},
    "Broadcast": {"rooms": ["chat:lobby", "chat:news"], "data": {"text": "hello, all"}},
    "Batch": {
        "commands": [
            {"publish": {"room": "chat:lobby", "data": 1}},
            {"send_to_user": {"user": "ann", "data": "ding"}},
            {"history": {"room": "chat:lobby", "limit": 10}},
        ]
    },
    "SendToUser": {"user": "ann", "data": {"mail": 3}},
    "Disconnect": {"user": "ann", "reconnect": False},
    "Unsubscribe": {"user": "ann", "room": "chat:lobby"},
    "Refresh": {"user": "ann", "rooms": ["chat:lobby"], "publish": []},
    "Revoke": {"user": "ann", "issued_before": 1767225600},
    "Presence": {"room": "chat:lobby", "limit": 10},
    "History": {"room": "chat:lobby", "limit": 10},
    "Ticket": {"user": "ann", "rooms": ["chat:*"], "publish": ["chat:*"], "ttl": 3600},
}
