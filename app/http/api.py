"""The server API under `/api`: what a backend does to rooms and users, with a key in `X-API-Key`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct

from app import codes
from app.auth.permissions import Claims, Rights
from app.broker.base import Position
from app.codes import CommandError
from app.gateway.gateway import Gateway
from app.gateway.history import past_publications, read_page
from app.http import api_types as types
from app.http.api_keys import require_api_key
from app.http.body import Call, read
from app.http.errors import Failure, Problem
from app.http.openapi import request_body, response
from app.server.pod import Slot
from app.wire.plain import JSON

Takes = TypeVar("Takes", bound=Call)
Gives = TypeVar("Gives", bound=Struct)

#: Publications of one broadcast that are under way at once.
BROADCAST_AT_ONCE = 50

#: A broadcast or a batch begins no step after so many seconds, so that one that meets a dead broker ends (each step
#: takes `broker_timeout` at most).
CALL_TIMEOUT = 10.0

#: What one batch may read: the first answer that makes it more is the last.
BATCH_READS = 4 * 1024 * 1024

router = APIRouter(prefix="/api", tags=["server API"], dependencies=[Depends(require_api_key)])


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _answer(body: Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


_FAILURES: dict[int | str, dict[str, Any]] = {
    400: response(Failure, "The body is malformed (107)"),
    401: response(Failure, "No key, or a wrong one (101)"),
    403: response(Failure, "The room belongs to a user, or no keys are configured (103)"),
    404: response(Failure, "The room's prefix names no namespace (102), or the feature is off here (108)"),
    408: response(Failure, "The body did not arrive in time (107)"),
    409: response(Failure, "`since` is a position that the history does not reach (112)"),
    413: response(Failure, "The body or the data is too large (106)"),
    429: response(Failure, "Too much is under way (111); see Retry-After"),
    503: response(Failure, "The broker did not answer, the outcome is unknown (100); see Retry-After"),
}


Action = Callable[[Gateway, Takes], Awaitable[Gives]]


def _route(
    path: str, takes: type[Takes], gives: type[Gives], summary: str
) -> Callable[[Action[Takes, Gives]], Action[Takes, Gives]]:
    """A POST route for an action that takes one type and gives another."""

    def register(action: Action[Takes, Gives]) -> Action[Takes, Gives]:
        async def endpoint(request: Request) -> Response:
            return _answer(await action(_gateway(request), await read(request, takes, nested=takes is types.Batch)))

        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            description=takes.__doc__ or "",
            operation_id=action.__name__,
            response_class=Response,
            responses={200: response(gives, gives.__doc__ or ""), **_FAILURES},
            openapi_extra=request_body(takes),
        )
        return action

    return register


@_route("/publish", types.Publish, types.Published, "Publish to a room")
async def publish(gateway: Gateway, wanted: types.Publish) -> types.Published:
    position = await gateway.publish_json(
        wanted.room,
        bytes(wanted.data),
        tags=wanted.tags,
        key=wanted.key,
        idempotency_key=wanted.idempotency_key,
    )
    return types.Published(position.epoch, position.offset)


@_route("/broadcast", types.Broadcast, types.Broadcasted, "Publish to many rooms")
async def broadcast(gateway: Gateway, wanted: types.Broadcast) -> types.Broadcasted:
    gate = asyncio.Semaphore(BROADCAST_AT_ONCE)
    deadline = gateway.now() + CALL_TIMEOUT

    async def one(room: str) -> types.RoomResult:
        async with gate:
            try:
                _check(gateway, deadline)
                done = await publish(
                    gateway,
                    types.Publish(
                        room=room,
                        data=wanted.data,
                        idempotency_key=wanted.idempotency_key,
                        key=wanted.key,
                        tags=wanted.tags,
                    ),
                )
            except CommandError as error:
                return types.RoomResult(room, error=_noted(gateway, error))
        return types.RoomResult(room, epoch=done.epoch, offset=done.offset)

    return types.Broadcasted(list(await asyncio.gather(*map(one, wanted.rooms))))


@_route("/send_to_user", types.SendToUser, types.Done, "Send a message to a user")
async def send_to_user(gateway: Gateway, wanted: types.SendToUser) -> types.Done:
    await gateway.send_json_to_user(wanted.user, bytes(wanted.data))
    return types.Done()


@_route("/disconnect", types.Disconnect, types.Done, "End the sessions of a user")
async def disconnect(gateway: Gateway, wanted: types.Disconnect) -> types.Done:
    await gateway.disconnect(wanted.user, session=wanted.session, reconnect=wanted.reconnect)
    return types.Done()


@_route("/unsubscribe", types.Unsubscribe, types.Done, "Take a user out of a room")
async def unsubscribe(gateway: Gateway, wanted: types.Unsubscribe) -> types.Done:
    await gateway.unsubscribe(wanted.user, wanted.room, session=wanted.session)
    return types.Done()


@_route("/refresh", types.Refresh, types.Done, "Change the rights of a user's sessions")
async def refresh(gateway: Gateway, wanted: types.Refresh) -> types.Done:
    rights = Rights(wanted.expires_at, wanted.rooms, wanted.publish)
    said = (wanted.expired, wanted.token is not None, rights != Rights())
    if sum(said) != 1:
        raise CommandError(codes.BAD_REQUEST, "exactly one of a token, some of its fields, or expired")
    if wanted.expired:
        await gateway.expire(wanted.user, session=wanted.session)
    else:
        wish = rights if wanted.token is None else wanted.token
        await gateway.refresh(wanted.user, wish, session=wanted.session)
    return types.Done()


@_route("/revoke", types.Revoke, types.Done, "Revoke tokens")
async def revoke(gateway: Gateway, wanted: types.Revoke) -> types.Done:
    if wanted.jti is not None and wanted.user is None and wanted.issued_before is None:
        await gateway.revoke_token(wanted.jti, expires_at=wanted.expires_at)
    elif wanted.user is not None and wanted.jti is None:
        await gateway.revoke_user(wanted.user, issued_before=wanted.issued_before, expires_at=wanted.expires_at)
    else:
        raise CommandError(codes.BAD_REQUEST, "either a jti, or a user with or without issued_before")
    return types.Done()


@_route("/presence", types.Presence, types.Present, "Who is in a room")
async def presence(gateway: Gateway, wanted: types.Presence) -> types.Present:
    present = await gateway.presence(wanted.room, wanted.limit)
    members = [types.Member(member.user, member.session) for member in present.members]
    return types.Present(present.sessions, present.users, members)


@_route("/history", types.History, types.HistoryPage, "A room's publications")
async def history(gateway: Gateway, wanted: types.History) -> types.HistoryPage:
    since = None if wanted.since is None else Position(wanted.since.epoch, wanted.since.offset)
    page = await read_page(gateway, wanted.room, since=since, limit=wanted.limit, reverse=wanted.reverse)
    return types.HistoryPage(page.top.epoch, page.top.offset, past_publications(page, JSON))


_ACTIONS: dict[str, Callable[[Gateway, Any], Awaitable[Any]]] = {
    "publish": publish,
    "broadcast": broadcast,
    "send_to_user": send_to_user,
    "disconnect": disconnect,
    "unsubscribe": unsubscribe,
    "refresh": refresh,
    "revoke": revoke,
    "presence": presence,
    "history": history,
}


@_route("/batch", types.Batch, types.Outcomes, "Several commands at once")
async def batch(gateway: Gateway, wanted: types.Batch) -> types.Outcomes:
    deadline = gateway.now() + CALL_TIMEOUT
    results, read = [], 0
    for command in wanted.commands:
        results.append(await _carry_out(gateway, command, deadline, may_read=read < BATCH_READS))
        if command.reads:
            read += len(msgspec.json.encode(results[-1]))
    return types.Outcomes(results)


async def _carry_out(gateway: Gateway, command: types.Command, deadline: float, *, may_read: bool) -> types.Outcome:
    named = [name for name in _ACTIONS if getattr(command, name) is not None]
    try:
        _check(gateway, deadline)
        if command.reads and not may_read:
            raise CommandError(codes.LIMIT_EXCEEDED, f"this batch has read {BATCH_READS} bytes already")
        if len(named) != 1:
            raise CommandError(codes.BAD_REQUEST, f"a command has exactly one of {', '.join(_ACTIONS)}")
        return types.Outcome(**{named[0]: await _ACTIONS[named[0]](gateway, getattr(command, named[0]))})
    except CommandError as error:
        return types.Outcome(error=_noted(gateway, error))


def _check(gateway: Gateway, deadline: float) -> None:
    """Raises CommandError 100 when the time of a call is over."""
    if gateway.now() >= deadline:
        raise CommandError(codes.INTERNAL, "not tried: the call took too long")


def _noted(gateway: Gateway, error: CommandError) -> Problem:
    """The error of one part of a call; that of a whole call is counted where it is answered."""
    gateway.counters.errors[error.error.code] += 1
    return Problem.of(error)


@_route("/tickets", types.Ticket, types.TicketIssued, "Issue a one-time ticket")
async def tickets(gateway: Gateway, wanted: types.Ticket) -> types.TicketIssued:
    now = time.time()
    expires_at = None if wanted.ttl is None else now + wanted.ttl
    claims = Claims.shared(wanted.user, expires_at, wanted.rooms, wanted.publish, issued_at=now)
    usable = gateway.settings.ticket_ttl if wanted.ttl is None else min(wanted.ttl, gateway.settings.ticket_ttl)
    return types.TicketIssued(await gateway.tickets.issue(claims), usable)


@router.get(
    "/rooms",
    summary="Rooms with members",
    response_class=Response,
    responses={200: response(types.RoomList, types.RoomList.__doc__ or ""), 401: _FAILURES[401], 503: _FAILURES[503]},
)
async def rooms(request: Request) -> Response:
    """Asks every node; meant for people, not for programs that ask often. At most 1,000 rooms of each node."""
    counts, nodes = await _gateway(request).rooms()
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return _answer(types.RoomList([types.RoomCount(room, members) for room, members in largest], nodes))


@router.post(
    "/drain",
    summary="End this pod",
    response_class=Response,
    responses={200: response(types.Done, "It has begun"), **{status: _FAILURES[status] for status in (401, 403, 404)}},
)
async def drain(request: Request) -> Response:
    """What SIGTERM to its gunicorn master does: all of its workers drain, and the pod ends. To be called at the pod
    itself, on its internal port: Nginx sends it to any."""
    slot: Slot = request.app.state.slot
    if not slot.pod.end():
        raise CommandError(codes.NOT_AVAILABLE, "this process has no gunicorn master")
    return _answer(types.Done())
