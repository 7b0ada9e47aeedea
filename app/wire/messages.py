"""The messages of the plain protocol as types; `docs/protocol.md` is made from their fields and docstrings."""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=64)]
Offset = Annotated[int, Meta(ge=0, le=2**53)]
RoomName = Annotated[str, Meta(min_length=1)]


class Since(Struct, forbid_unknown_fields=True):
    """A position that the client has seen."""

    epoch: str
    offset: Offset


class Command(Struct, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """What a client sends. `id` is optional and comes back in the reply."""

    id: Id | None = None


class Auth(Command, tag="auth", kw_only=True):
    """Credentials: the first message where the upgrade carried none; later, it refreshes the session in place."""

    token: str


class Subscribe(Command, tag="subscribe", kw_only=True):
    """Joins a room. With `since` the reply says whether it `recovered`: then all publications after that position
    follow, each once; else some are lost to this client, and `offset` is where it begins."""

    room: RoomName
    since: Since | None = None


class Unsubscribe(Command, tag="unsubscribe", kw_only=True):
    """Leaves a room."""

    room: RoomName


class Publish(Command, tag="publish", kw_only=True):
    """Publishes any JSON value. `key` is for conflation; `ephemeral` leaves no history and has no offset."""

    room: RoomName
    data: Raw
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    ephemeral: bool = False


class Presence(Command, tag="presence", kw_only=True):
    """Asks who is in a room that this session is in: how many, and at most `limit` of them by name."""

    room: RoomName
    limit: Annotated[int, Meta(ge=0)] | None = None


class History(Command, tag="history", kw_only=True):
    """Asks for publications that a room keeps, the oldest first: `limit` at most, after `since`; with `reverse` those
    before it, the newest first. `limit` 0 asks for the room's position only."""

    room: RoomName
    limit: Annotated[int, Meta(ge=0)] | None = None
    since: Since | None = None
    reverse: bool = False


class Rpc(Command, tag="rpc", kw_only=True):
    """Calls the hook `on_rpc`."""

    method: Annotated[str, Meta(min_length=1, max_length=128)]
    data: Raw = Raw(b"")


class Ping(Command, tag="ping", kw_only=True):
    """Asks for a `pong`."""


class Pong(Command, tag="pong", kw_only=True):
    """Answers the server's `ping`; has no reply."""


AnyCommand = Auth | Subscribe | Unsubscribe | Publish | Presence | History | Rpc | Ping | Pong


class Event(Struct, tag_field="type", kw_only=True, omit_defaults=True):
    """What the server sends. Fields without a value are left out."""


class Publisher(Struct, kw_only=True):
    """Which client published; absent for what came by the server API."""

    user: str
    session: str


class Member(Struct):
    """One session in a room."""

    user: str
    session: str


class Welcome(Event, tag="welcome", kw_only=True):
    """The first frame after the upgrade (A4). `node` differs for each worker.

    `ping_interval` is in seconds, 0: the server does not ping."""

    session: str
    node: str
    ping_interval: float


class PastPublication(Struct, kw_only=True, omit_defaults=True, rename={"sender": "from"}):
    """A publication of a room's history. No `from`: it came by the server API."""

    offset: int
    data: Raw
    sender: Publisher | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET


class Ok(Event, tag="ok", kw_only=True):
    """A command's success; which fields there are depends on the command. No `expires_in`: the token never expires."""

    id: int | str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    expires_in: int | UnsetType = UNSET
    room: str | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    publications: list[PastPublication] | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    sessions: int | UnsetType = UNSET
    users: int | UnsetType = UNSET
    members: list[Member] | UnsetType = UNSET


class Error(Event, tag="error", kw_only=True):
    """A command's failure; `temporary`: the same command may succeed later."""

    id: int | str | UnsetType = UNSET
    code: int
    reason: str
    temporary: bool


class Message(Event, tag="message", kw_only=True, rename={"sender": "from"}):
    """A publication. `skipped`: how many before it were left out for this member (O2). Without `data` it only tells a
    publisher the position of its own publication. The room of what was sent to the user is `#` and the user."""

    room: str
    offset: int | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    sender: Publisher | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    skipped: int | UnsetType = UNSET


class Insufficient(Event, tag="insufficient", kw_only=True):
    """Publications of this room may have been missed; what is needed must be fetched elsewhere (P1). With history, what
    follows comes after this position, and a client can come back with it."""

    room: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET


class PresenceChange(Event, tag="presence", kw_only=True):
    """Users whose first session came into the room, or whose last one left it some seconds ago, where the namespace has
    `join_leave`. `resync`: such events may have been missed; the command `presence` says how it is."""

    room: str
    joined: list[str] | UnsetType = UNSET
    left: list[str] | UnsetType = UNSET
    resync: bool | UnsetType = UNSET


class Unsubscribed(Event, tag="unsubscribed", kw_only=True):
    """The server took this session out of a room, as its rights have changed (A2) or the server API said so."""

    room: str
    code: int
    reason: str


class ServerPing(Event, tag="ping", kw_only=True):
    """Asks for a sign of life; the client answers `pong`."""


class ServerPong(Event, tag="pong", kw_only=True):
    """Answers the client's `ping`."""

    id: int | str | UnsetType = UNSET


class Goodbye(Event, tag="goodbye", kw_only=True):
    """The last message before the server closes; `reconnect_in_ms` is there when the client should come back (N6)."""

    code: int
    reason: str
    reconnect_in_ms: int | UnsetType = UNSET


EVENTS: tuple[type[Event], ...] = (
    Welcome,
    Ok,
    Error,
    Message,
    Insufficient,
    PresenceChange,
    Unsubscribed,
    ServerPing,
    ServerPong,
    Goodbye,
)
COMMANDS: tuple[type[Command], ...] = (Auth, Subscribe, Unsubscribe, Publish, Presence, History, Rpc, Ping, Pong)
