"""What one node asks of all: messages on the control channel (P6: versioned like everything between nodes)."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Raw, Struct

from app import codes
from app.auth.permissions import Rights
from app.broker.base import NO_POSITION
from app.gateway.balance import Load
from app.gateway.commands import take_claims
from app.gateway.delivery import Delivery
from app.gateway.hub import Hub
from app.gateway.naming import USER_PREFIX
from app.gateway.outbox import Entry
from app.gateway.registry import Registry
from app.gateway.revoking import REASON
from app.gateway.session import Session
from app.settings import SlowConsumer
from app.telemetry import logs
from app.telemetry.counters import Counters
from app.telemetry.logs import Limited
from app.wire.publication import Publication
from app.wire.versioned import UnknownVersion, Versioned

log = Limited(logs.get("control"))


class _ToUser(Struct, tag="user", array_like=True):
    user: str
    data: Raw


class _Disconnect(Struct, tag="disconnect", array_like=True):
    user: str
    session: str | None
    reconnect: bool


class _Unsubscribe(Struct, tag="unsubscribe", array_like=True):
    user: str
    room: str
    session: str | None


class _Refresh(Struct, tag="refresh", array_like=True):
    """`rights` None: they have run out."""

    user: str
    session: str | None
    rights: Rights | None


class _Revoked(Struct, tag="revoked", array_like=True):
    entry: str
    until: float


class _Kill(Struct, tag="kill", array_like=True):
    node: str


class _DrainEdge(Struct, tag="edge", array_like=True):
    edge: str
    window: float


class _AskHearing(Struct, tag="hear?", array_like=True):
    question: str


class _TooSlow(Struct, tag="slow", array_like=True):
    client: str


class _AskRooms(Struct, tag="rooms?", array_like=True):
    question: str


class RoomCounts(Struct, tag="rooms", array_like=True):
    """One node's answer."""

    question: str
    rooms: dict[str, int]


_message: Versioned[Any] = Versioned(
    _ToUser
    | _Disconnect
    | _Unsubscribe
    | _Refresh
    | _Revoked
    | Load
    | _Kill
    | _DrainEdge
    | _TooSlow
    | _AskHearing
    | _AskRooms
    | RoomCounts,
    b"1",
)

#: Rooms in one node's answer; the largest.
MOST_ROOMS = 1000


class Control:
    """Writes the messages, and carries out what was heard, for the sessions of this node.

    `reply` sends a message of ours to all nodes, some time later; `note_revoked` takes what was revoked, until when;
    `hear_load` what a node holds; `drain_edge` which edge goes away, and in how many seconds."""

    def __init__(
        self,
        registry: Registry,
        hub: Hub,
        counters: Counters,
        node: str,
        reply: Callable[[bytes], None],
        *,
        note_revoked: Callable[[bytes, float], None],
        hear_load: Callable[[Load], None],
        drain_edge: Callable[[str, float], None],
        dev: bool,
    ) -> None:
        self._registry = registry
        self._hub = hub
        self._counters = counters
        self._node = node
        self._reply = reply
        #: Takes the question of a node that wonders whether others hear.
        self.on_ask_hearing: Callable[[str], None] = lambda _: None
        #: Takes the answers to `ask_rooms`.
        self.on_room_counts: Callable[[RoomCounts], None] = lambda _: None
        self._actions: dict[type, Callable[..., None]] = {
            _ToUser: self._to_user,
            _Disconnect: self._disconnect,
            _Unsubscribe: self._unsubscribe,
            _Refresh: self._refresh,
            _Revoked: lambda action: note_revoked(action.entry.encode(), action.until),
            Load: hear_load,
            _DrainEdge: lambda action: drain_edge(action.edge, action.window),
            _Kill: self._kill if dev else self._ignore,
            _AskHearing: lambda asked: self.on_ask_hearing(asked.question),
            _TooSlow: self._too_slow,
            _AskRooms: self._tell_rooms,
            RoomCounts: lambda answer: self.on_room_counts(answer),
        }

    def send_to_user(self, user: str, data: bytes) -> bytes:
        return _message.pack(_ToUser(user, Raw(data)))

    def disconnect(self, user: str, session: str | None, reconnect: bool) -> bytes:
        return _message.pack(_Disconnect(user, session, reconnect))

    def unsubscribe(self, user: str, room: str, session: str | None) -> bytes:
        return _message.pack(_Unsubscribe(user, room, session))

    def refresh(self, user: str, session: str | None, rights: Rights | None) -> bytes:
        return _message.pack(_Refresh(user, session, rights))

    def revoked(self, entry: bytes, until: float) -> bytes:
        return _message.pack(_Revoked(entry.decode(), until))

    def load(self, load: Load) -> bytes:
        return _message.pack(load)

    def drain_edge(self, edge: str, window: float) -> bytes:
        return _message.pack(_DrainEdge(edge, window))

    def kill(self, node: str) -> bytes:
        return _message.pack(_Kill(node))

    def ask_hearing(self, question: str) -> bytes:
        return _message.pack(_AskHearing(question))

    def too_slow(self, client: str) -> bytes:
        """All nodes have to know it, as the client may come back to any of them (R3)."""
        return _message.pack(_TooSlow(client))

    def ask_rooms(self, question: str) -> bytes:
        return _message.pack(_AskRooms(question))

    def carry_out(self, message: bytes) -> None:
        """Never raises: a message of a newer release is left to the nodes that know it."""
        try:
            action = _message.unpack(message)
        except UnknownVersion as error:
            log.warning("control.unreadable", error=str(error))
            self._counters.unreadable["control"] += 1
            return
        self._actions[type(action)](action)

    def _to_user(self, action: _ToUser) -> None:
        delivery = Delivery(USER_PREFIX + action.user, NO_POSITION, Publication(action.data))
        for session in self._registry.of_user(action.user):
            session.deliver(Entry(delivery.frame(session.format), delivery), SlowConsumer.DISCONNECT)

    def _disconnect(self, action: _Disconnect) -> None:
        close = codes.FORCE_RECONNECT if action.reconnect else codes.FORCE_DISCONNECT
        for session in self._sessions(action.user, action.session):
            session.end(close)

    def _sessions(self, user: str, session: str | None) -> Iterable[Session]:
        """All of a user's on this node, or the one with that id."""
        return (found for found in self._registry.of_user(user) if session is None or session == found.id)

    def _unsubscribe(self, action: _Unsubscribe) -> None:
        for session in self._sessions(action.user, action.session):
            session.changes += 1
            room = session.rooms.get(action.room)
            if room is not None:
                session.unsubscribe(room, codes.FORCE_DISCONNECT)

    def _refresh(self, action: _Refresh) -> None:
        for session in self._sessions(action.user, action.session):
            if action.rights is None:
                session.end(codes.SESSION_EXPIRED)
            elif session.claims is not None:
                session.changes += 1
                claims = action.rights.of_a_session(session.claims)
                if session.gateway.revocations.refuse(claims):  # since another node has looked
                    session.end(codes.INVALID_TOKEN, REASON)
                else:
                    take_claims(session, claims)

    def _kill(self, action: _Kill) -> None:
        """For the demo, in development mode only (N7)."""
        if action.node == self._node:
            os.kill(os.getpid(), signal.SIGKILL)

    def _ignore(self, action: _Kill) -> None:
        log.warning("control.refused", action="kill")

    def _too_slow(self, action: _TooSlow) -> None:
        self._hub.laggards.closed(action.client, asyncio.get_running_loop().time())

    def _tell_rooms(self, action: _AskRooms) -> None:
        counts = sorted(((len(room.members), name) for name, room in self._hub.rooms.items()), reverse=True)
        answer = RoomCounts(action.question, {name: count for count, name in counts[:MOST_ROOMS] if count})
        self._reply(_message.pack(answer))
