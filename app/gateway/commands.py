"""What each command of a client does. A handler finishes at once, or returns what has to be awaited."""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from app import codes
from app.auth.permissions import Claims
from app.auth.signed_token import InvalidToken
from app.auth.tokens import ExpiredToken
from app.broker.base import Position
from app.codes import CommandError, Disconnect
from app.gateway.history import past_publications, read_page
from app.gateway.hub import Reply
from app.gateway.naming import namespace_of, options_of
from app.gateway.publishing import Publishing
from app.settings import Access, Namespace
from app.wire.messages import (
    Auth,
    Command,
    History,
    Member,
    Ping,
    Pong,
    Presence,
    Publish,
    Rpc,
    ServerPong,
    Subscribe,
    Unsubscribe,
)

if TYPE_CHECKING:
    from app.gateway.gateway import Gateway
    from app.gateway.session import Session

Work = Coroutine[Any, Any, None]


def enter_by_token(session: "Session", token: str) -> Work | None:
    """Lets a session in by the token of its upgrade. There is no reply: the client sent no command."""
    gateway = session.gateway
    if gateway.admits_at_once:
        try:
            claims = gateway.verifier.verify_now(token)
        except InvalidToken as error:
            raise _turned_away(error) from None
        if claims is not None:
            gateway.let_in(session, claims)
            return _subscribe_path_room(session)
    return _enter(session, gateway.verifier.verify(token))


def enter_by_ticket(session: "Session", ticket: str) -> Work:
    """The same by a one-time ticket."""
    return _enter(session, _redeemed(session.gateway, ticket))


async def _redeemed(gateway: "Gateway", ticket: str) -> Claims:
    claims = await gateway.tickets.redeem(ticket)
    if claims is None:
        raise InvalidToken("the ticket is used, too old, or none at all")
    return claims


async def _enter(session: "Session", credentials: Coroutine[Any, Any, Claims]) -> None:
    try:
        await session.gateway.admit(session, await credentials)
    except (InvalidToken, CommandError) as error:
        raise _turned_away(error) from None
    await _finished(_subscribe_path_room(session))


def _turned_away(error: InvalidToken | CommandError) -> Disconnect:
    match error:
        case ExpiredToken():
            return Disconnect(codes.SESSION_EXPIRED)
        case InvalidToken():
            return Disconnect(codes.INVALID_TOKEN, str(error))
        case CommandError():
            # What is temporary says nothing against the credentials: come back, instead of staying away as a stale one.
            return Disconnect(codes.SERVER_ERROR if error.error.temporary else codes.ACCESS_DENIED, error.reason)


async def _finished(work: Work | None) -> None:
    if work is not None:
        await work


def auth(session: "Session", command: Auth) -> Work | None:
    gateway = session.gateway
    if session.claims is None and gateway.admits_at_once:
        try:
            claims = gateway.verifier.verify_now(command.token)
        except InvalidToken as error:
            raise _refused(error) from None
        if claims is not None:
            gateway.let_in(session, claims)
            _tell_who(session, command, claims)
            return _subscribe_path_room(session)
    return _auth(session, command)


async def _auth(session: "Session", command: Auth) -> None:
    try:
        claims = await session.gateway.verifier.verify(command.token)
    except InvalidToken as error:
        raise _refused(error) from None
    first = session.claims is None
    if first:
        await session.gateway.admit(session, claims)
    else:
        _refresh(session, claims)
    _tell_who(session, command, claims)
    if first:
        await _finished(_subscribe_path_room(session))


def _refused(error: InvalidToken) -> CommandError | Disconnect:
    """An expired token may be followed by a new one; any other ends the session."""
    if isinstance(error, ExpiredToken):
        return CommandError(codes.TOKEN_EXPIRED)
    return Disconnect(codes.INVALID_TOKEN, str(error))


def _tell_who(session: "Session", command: Auth, claims: Claims) -> None:
    left = UNSET if claims.expires_at is None else max(0, int(claims.expires_at - time.time()))
    session.ok(command.id, user=claims.user, expires_in=left)


def _refresh(session: "Session", claims: Claims) -> None:
    """New rights in place, by a token of the same user (A2)."""
    assert session.claims is not None
    if claims.user != session.claims.user:
        raise Disconnect(codes.INVALID_TOKEN, "the token belongs to another user")
    session.gateway.refuse_revoked(claims)
    take_claims(session, claims)


def take_claims(session: "Session", claims: Claims) -> None:
    """Of the same user; rooms that are not allowed any more are left (A2)."""
    session.identified(claims)
    for room in tuple(session.rooms.values()):
        if room.options.subscribe is Access.TOKEN and not claims.may_subscribe(room.name):
            session.unsubscribe(room, codes.ACCESS_DENIED)


def _subscribe_path_room(session: "Session") -> Work | None:
    room, session.path_room = session.path_room, None
    return None if room is None else subscribe(session, Subscribe(room=room))


def subscribe(session: "Session", command: Subscribe) -> Work | None:
    claims = session.authenticated()
    settings = session.gateway.settings
    room = command.room
    options = options_of(room, settings)
    if room in session.rooms:
        raise CommandError(codes.ALREADY_SUBSCRIBED)
    if len(session.rooms) >= settings.max_subscriptions:
        session.gateway.counters.limit_hits["max_subscriptions"] += 1
        raise CommandError(codes.LIMIT_EXCEEDED, f"at most {settings.max_subscriptions} subscriptions")
    _require(options.subscribe, claims.may_subscribe, room)
    if command.since is not None and not options.history_size:
        raise CommandError(codes.NOT_AVAILABLE, "this namespace keeps no history")
    reply = partial(_joined, session, command)
    if not session.gateway.hooks.defines("on_subscribe"):
        _require_hook(options.subscribe, None)
        if session.gateway.hub.join_at_once(session, room, options, reply):
            return None
    return _subscribe(session, command, options, reply)


async def _subscribe(session: "Session", command: Subscribe, options: Namespace, reply: Reply) -> None:
    gateway, room = session.gateway, command.room
    changes = session.changes

    def joined(position: Position, recovered: bool | None) -> None:
        if session.changes != changes:
            raise CommandError(codes.INTERNAL, "the session's rights changed meanwhile")
        reply(position, recovered)

    _require_hook(options.subscribe, await gateway.hooks.subscribe(session, room))
    since = None if command.since is None else Position(command.since.epoch, command.since.offset)
    await gateway.hub.join(session, room, options, joined, since)


def _joined(session: "Session", command: Subscribe, position: Position, recovered: bool | None) -> None:
    told = UNSET if recovered is None else recovered
    session.ok(command.id, room=command.room, epoch=position.epoch, offset=position.offset, recovered=told)


def unsubscribe(session: "Session", command: Unsubscribe) -> None:
    """Leaving a room twice is no error: the wish is fulfilled."""
    session.authenticated()
    room = session.rooms.get(command.room)
    if room is not None:
        session.unsubscribe(room)
    session.ok(command.id, room=command.room)


def publish(session: "Session", command: Publish) -> Work:
    claims = session.authenticated()
    options = options_of(command.room, session.gateway.settings)
    _require(options.publish, claims.may_publish, command.room)
    _check_publish_rate(session, command.room, options)
    data = session.format.data_as_json(bytes(command.data), options.max_publication_bytes)
    return _publish(session, command, options, data)


def _check_publish_rate(session: "Session", room: str, options: Namespace) -> None:
    if not options.publish_rate:
        return
    gateway = session.gateway
    if session.publish_rates is None:
        session.publish_rates = {}
    namespace = namespace_of(room)
    state = gateway.publish_rate(namespace).next_state(session.publish_rates.get(namespace, 0.0), gateway.now())
    if state is None:
        gateway.counters.limit_hits["publish_rate"] += 1
        raise CommandError(codes.TOO_MANY_REQUESTS)
    session.publish_rates[namespace] = state


async def _publish(session: "Session", command: Publish, options: Namespace, data: bytes) -> None:
    gateway = session.gateway
    publishing = Publishing(command.room, data, command.key)
    _require_hook(options.publish, await gateway.hooks.publish(session, publishing, options.max_publication_bytes))
    position = await gateway.publish_json(
        command.room,
        publishing.json,
        sender=session,
        key=command.key,
        tags=publishing.tags or None,
        idempotency_key=command.idempotency_key,
        ephemeral=command.ephemeral,
    )
    session.ok(command.id, epoch=position.epoch, offset=position.offset)


def presence(session: "Session", command: Presence) -> Work:
    session.authenticated()
    options = options_of(command.room, session.gateway.settings)
    if options.presence and command.room not in session.rooms:
        raise CommandError(codes.PERMISSION_DENIED, "only members may ask who is in a room")
    return _presence(session, command)


async def _presence(session: "Session", command: Presence) -> None:
    present = await session.gateway.presence(command.room, command.limit)
    members = [Member(member.user, member.session) for member in present.members]
    session.ok(command.id, room=command.room, sessions=present.sessions, users=present.users, members=members)


def history(session: "Session", command: History) -> Work:
    _check_reading(session, command.room)
    return _history(session, command)


async def _history(session: "Session", command: History) -> None:
    since = None if command.since is None else Position(command.since.epoch, command.since.offset)
    page = await read_page(session.gateway, command.room, since=since, limit=command.limit, reverse=command.reverse)
    session.ok(
        command.id,
        room=command.room,
        epoch=page.top.epoch,
        offset=page.top.offset,
        publications=past_publications(page, session.format),
    )


def _check_reading(session: "Session", room: str) -> None:
    """Who is in a room may read about it, and who may subscribe. Raises CommandError 101, 102, 103, 107, 109.

    The hook is not asked, as it is about joining: where it has a say, only members read."""
    claims = session.authenticated()
    if room in session.rooms:
        return
    access = options_of(room, session.gateway.settings).subscribe
    _require(access, claims.may_subscribe, room)
    if access is Access.HOOK or session.gateway.hooks.defines("on_subscribe"):
        raise CommandError(codes.PERMISSION_DENIED, "subscribe to the room first")


def rpc(session: "Session", command: Rpc) -> Work:
    session.authenticated()
    data = bytes(command.data)
    limit = session.gateway.settings.max_message_bytes
    return _rpc(session, command, session.format.data_as_json(data, limit) if data else b"null")


async def _rpc(session: "Session", command: Rpc, data: bytes) -> None:
    result = await session.gateway.hooks.rpc(session, command.method, data)
    session.ok(command.id, data=session.format.data_from_json(result))


def ping(session: "Session", command: Ping) -> None:
    session.send(ServerPong() if command.id is None else ServerPong(id=command.id))


def pong(session: "Session", command: Pong) -> None:
    """That it came is all: see Session.receive."""


def _require(access: Access, may: Callable[[str], bool], room: str) -> None:
    """What can be decided without the hook, which has its say afterwards. Raises CommandError 103."""
    if access is Access.NOBODY or (access is Access.TOKEN and not may(room)):
        raise CommandError(codes.PERMISSION_DENIED)


def _require_hook(access: Access, allowed: bool | None) -> None:
    """A hook may refuse everywhere; in a namespace with access `hook` it has to allow. Raises CommandError 103."""
    if allowed is False or (access is Access.HOOK and allowed is not True):
        raise CommandError(codes.PERMISSION_DENIED)


HANDLERS: dict[type[Command], Callable[..., Work | None]] = {
    Auth: auth,
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Publish: publish,
    Presence: presence,
    History: history,
    Rpc: rpc,
    Ping: ping,
    Pong: pong,
}

#: For metrics: what a client called the command.
COMMAND_NAMES: dict[type[Command], str] = {command: str(command.__struct_config__.tag) for command in HANDLERS}
