"""A page of a room's history, as a client or the server API asks for it."""

from typing import TYPE_CHECKING

from msgspec import UNSET

from app import codes
from app.broker.base import Page, Position
from app.codes import CommandError
from app.gateway.naming import options_of
from app.telemetry import logs
from app.telemetry.logs import Limited
from app.wire.messages import PastPublication, Publisher
from app.wire.plain import Format
from app.wire.publication import unpack
from app.wire.versioned import UnknownVersion

if TYPE_CHECKING:
    from app.gateway.gateway import Gateway

log = Limited(logs.get("history"))


async def read_page(
    gateway: "Gateway", room: str, *, since: Position | None, limit: int | None, reverse: bool = False
) -> Page:
    """At most `limit` publications (None, or more than `history_page`: so many), and half of `outbox_bytes`.

    Raises CommandError: 108 where the namespace keeps no history, 112 for a `since` that this history does not reach,
    102, 103, 107 as `options_of`; BrokerUnavailable."""
    settings = gateway.settings
    options = options_of(room, settings)
    if not options.history_size:
        raise CommandError(codes.NOT_AVAILABLE, "this namespace keeps no history")
    page = await gateway.broker.read(
        room,
        gateway.hub.history_of(options),
        since=None if since is None else since.offset,
        limit=settings.history_page if limit is None else min(limit, settings.history_page),
        reverse=reverse,
        max_bytes=settings.outbox_bytes // 2,
    )
    if since is not None:
        _check_reach(page, since, nothing_asked=reverse or limit == 0)
    return page


def _check_reach(page: Page, since: Position, *, nothing_asked: bool) -> None:
    """Raises CommandError 112 where `since` is no position of this history, or what follows it is not kept any more.

    `nothing_asked`: nothing that follows it was asked for."""
    if since.epoch != page.top.epoch:
        raise CommandError(codes.UNRECOVERABLE, "the room's history has begun anew since: another epoch")
    if since.offset > page.top.offset:
        raise CommandError(codes.UNRECOVERABLE, "the position is ahead of the room's history")
    if nothing_asked or since.offset == page.top.offset:
        return
    if not page.publications or page.publications[0][0] != since.offset + 1:
        raise CommandError(codes.UNRECOVERABLE, "the room's history no longer reaches the position")


def past_publications(page: Page, format: Format) -> list[PastPublication]:
    """What a page holds, as clients of a format read it.

    Raises CommandError 100 for what another release wrote and this one cannot read (P6): no gap without a word."""
    return [_past(offset, envelope, format) for offset, envelope in page.publications]


def _past(offset: int, envelope: bytes, format: Format) -> PastPublication:
    try:
        publication = unpack(envelope)
    except UnknownVersion as error:
        log.warning("history.unreadable", error=str(error))
        raise CommandError(codes.INTERNAL, f"this node cannot read the publication at offset {offset}") from None
    return PastPublication(
        offset=offset,
        data=format.data_from_json(bytes(publication.data)),
        sender=Publisher(user=publication.user or "", session=publication.session) if publication.session else UNSET,
        tags=publication.tags or UNSET,
    )
