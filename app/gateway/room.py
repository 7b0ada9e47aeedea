"""A room on this node: its local members, and the snapshot of them that the fan-out writes to (O5)."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.broker.base import Position
from app.gateway.delivery import Delivery
from app.settings import Namespace
from app.wire.plain import FORMATS, Format

if TYPE_CHECKING:
    from app.gateway.session import Session

#: Publications that wait for one joiner's position; more of them, and it is told that its state is insufficient.
JOINING_LIMIT = 1000

Writes = tuple[Callable[[bytes], None], ...]


class Room:
    """Created by the first joiner, gone some seconds after the last member left."""

    __slots__ = (
        "dirty",
        "joining",
        "late",
        "members",
        "name",
        "namespace",
        "options",
        "others",
        "passing",
        "pending",
        "ready",
        "skipped",
        "timer",
        "top",
        "waiting",
        "writes",
    )

    def __init__(self, name: str, namespace: str, options: Namespace) -> None:
        self.name = name
        self.namespace = namespace
        self.options = options
        self.members: set[Session] = set()
        #: Done when the broker has confirmed the subscription.
        self.ready: asyncio.Future[None] | None = None
        #: How many sessions are between their subscribe command and its reply.
        self.waiting = 0
        #: The newest position that this node has heard or read; None before the first.
        self.top: Position | None = None

        #: Joiners that wait for their position, with what came meanwhile (R1). None while there are none.
        self.joining: dict[Session, list[Delivery]] | None = None
        #: Members whose position was ahead of what this node had heard: they get only what is after it.
        self.late: dict[Session, int] = {}
        #: Publications that a member did not get since its last message (O2).
        self.skipped: dict[Session, int] = {}

        #: The snapshot: ready-made writes by format and whether they take compressed frames, and members that need a
        #: look each. Valid while not dirty.
        self.dirty = True
        self.writes: tuple[tuple[Format, bool, Writes], ...] = ()
        self.others: tuple[Session, ...] = ()

        #: Publications of the current window, or that wait for a pass in chunks to end; its timer or handle.
        self.pending: list[Delivery] = []
        self.timer: asyncio.Handle | None = None
        #: The rest of a pass in chunks.
        self.passing: list[tuple[Writes, bytes]] = []

    def rebuild(self) -> None:
        """Makes the snapshot anew. The tuples are never changed, so a pass over old ones goes on safely."""
        plain: tuple[list[Callable[[bytes], None]], ...] = tuple([] for _ in FORMATS)
        deflated: tuple[list[Callable[[bytes], None]], ...] = tuple([] for _ in FORMATS)
        others = []
        for member in self.members:
            if member.raw_write is None or member in self.skipped or member in self.late:
                others.append(member)
            else:
                (deflated if member.connection.compressed else plain)[member.format.index].append(member.raw_write)
        self.writes = tuple(
            (format, by_format is deflated, tuple(writes))
            for by_format in (plain, deflated)
            for format, writes in zip(FORMATS, by_format, strict=True)
            if writes
        )
        self.others = tuple(others)
        self.dirty = False

    def hear(self, position: Position) -> bool:
        """Notes the position of a publication. False: it is a repetition."""
        top = self.top
        if top is not None and top.epoch == position.epoch and position.offset <= top.offset:
            return False
        self.top = position
        if self.late:
            self._forget_caught_up(position.offset)
        return True

    def follows(self, position: Position) -> bool:
        """Whether `position` is the next one: otherwise something was missed."""
        top = self.top
        return top is None or (top.epoch == position.epoch and position.offset <= top.offset + 1)

    def _forget_caught_up(self, offset: int) -> None:
        caught_up = [member for member, start in self.late.items() if start < offset]
        for member in caught_up:
            del self.late[member]
        self.dirty = self.dirty or bool(caught_up)

    def discard(self, session: "Session") -> None:
        """Removes every trace of a session."""
        self.members.discard(session)
        self.late.pop(session, None)
        self.skipped.pop(session, None)
        if self.joining is not None:
            self.joining.pop(session, None)
        self.dirty = True

    @property
    def empty(self) -> bool:
        return not self.members and not self.waiting
