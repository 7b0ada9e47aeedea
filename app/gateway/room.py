"""A room on this node: its local members, and the snapshot of them that the fan-out writes to (O5)."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.broker.base import Position
from app.gateway.delivery import Delivery
from app.gateway.replay import SharedReads
from app.gateway.writers import Writers
from app.settings import Namespace
from app.wire.plain import FORMATS, Format

if TYPE_CHECKING:
    from app.gateway.session import Session

#: Publications that wait for one joiner's position; more of them, and it is told that its state is insufficient.
JOINING_LIMIT = 1000


class Room:
    """Created by the first joiner, gone some seconds after the last member left.

    A node may have 100,000 of them: what most rooms never need is made when it is needed."""

    __slots__ = (
        "dirty",
        "era",
        "heard_at",
        "held",
        "held_bytes",
        "held_too_much",
        "joining",
        "late",
        "members",
        "name",
        "namespace",
        "options",
        "others",
        "passing",
        "paused",
        "pending",
        "reads",
        "ready",
        "skipped",
        "subscribed",
        "timer",
        "top",
        "uninformed",
        "waiting",
        "writers",
    )

    def __init__(self, name: str, namespace: str, options: Namespace) -> None:
        self.name = name
        self.namespace = namespace
        self.options = options
        self.members: set[Session] = set()
        #: Whether the broker has confirmed the subscription; until then, what asks it to.
        self.subscribed = False
        self.ready: asyncio.Future[None] | None = None
        #: How many sessions are between their subscribe command and its reply.
        self.waiting = 0
        #: The newest position that this node has heard or read; None before the first.
        self.top: Position | None = None

        #: Reads of the history, shared by those who join; None while nobody does.
        self.reads: SharedReads | None = None
        #: Publications that wait until a gap before them is filled; None while there is none (R2).
        self.held: list[Delivery] | None = None
        self.held_bytes = 0
        #: Whether something was not kept since the repair's last read was sent.
        self.held_too_much = False
        #: Rises whenever what comes does not follow what came: another history, or an outage. A read that was sent in
        #: an earlier one says nothing about this one.
        self.era = 0
        #: Joiners that wait for their position, with what came meanwhile (R1). None while there are none.
        self.joining: dict[Session, list[Delivery]] | None = None
        #: Members whose position was ahead of what this node had heard: they get only what is after it.
        self.late: dict[Session, int] | None = None
        #: Publications that a member did not get since its last message (O2).
        self.skipped: dict[Session, int] | None = None

        #: Members that missed something and have not been told yet; nothing is written to them before.
        self.uninformed: set[Session] | None = None

        #: The snapshot: who gets the same bytes, by format and whether they take compressed frames; and members that do
        #: not read. Valid while not dirty.
        self.dirty = True
        self.writers: tuple[tuple[Format, bool, Writers], ...] = ()
        self.others: tuple[Session, ...] = ()

        #: A member of the snapshot has been paused since: bytes for its socket must not overtake its transport's.
        self.paused = False

        #: Publications of the current window, or that wait for a pass in chunks to end; its timer or handle.
        self.pending: list[Delivery] | None = None
        self.timer: asyncio.Handle | None = None
        #: When the room's last publication was heard, in the loop's time; kept where `coalesce_rate` asks for it.
        self.heard_at = 0.0
        #: A pass in chunks: to whom, from which one up to which, what.
        self.passing: Sequence[tuple[Writers, int, int, bytes]] = ()

    def rebuild(self) -> None:
        """Makes the snapshot anew."""
        plain: tuple[list[Session], ...] = tuple([] for _ in FORMATS)
        deflated: tuple[list[Session], ...] = tuple([] for _ in FORMATS)
        others = []
        for member in self.members - self.uninformed if self.uninformed else self.members:
            if member.raw_write is None:
                others.append(member)
            else:
                (deflated if member.connection.compressed else plain)[member.format.index].append(member)
        self.writers = tuple(
            (format, by_format is deflated, Writers(members))
            for by_format in (plain, deflated)
            for format, members in zip(FORMATS, by_format, strict=True)
            if members
        )
        self.others = tuple(others)
        self.dirty = self.paused = False

    def hear(self, position: Position) -> bool:
        """Notes the position of a publication. False: it is a repetition."""
        top = self.top
        if top is not None and top.epoch == position.epoch and position.offset <= top.offset:
            return False
        if top is None or top.epoch != position.epoch:
            self.begin_anew(position)
        self.top = position
        return True

    def begin_anew(self, top: Position) -> None:
        """What comes does not follow what came. In another history nobody is ahead; in the same one, who knows all up
        to `top` or more has missed nothing."""
        same = self.top is not None and self.top.epoch == top.epoch
        self.late = {m: start for m, start in (self.late or {}).items() if same and start >= top.offset} or None
        self.top = top
        self.era += 1

    def drop_held(self) -> None:
        """What waits will be read from history."""
        self.held, self.held_bytes, self.held_too_much = [], 0, False

    def follows(self, position: Position) -> bool:
        """Whether `position` is the next one: otherwise something was missed."""
        top = self.top
        return top is None or (top.epoch == position.epoch and position.offset <= top.offset + 1)

    def sent(self, offset: int) -> None:
        """Everybody has got what is up to `offset`: who knew no more is late no longer."""
        if self.late:
            self.late = {member: start for member, start in self.late.items() if start > offset} or None

    def wait_for_window(self, delivery: Delivery) -> None:
        """Adds a publication to those that leave together."""
        if self.pending is None:
            self.pending = []
        self.pending.append(delivery)

    def start_late(self, session: "Session", offset: int) -> None:
        """From now on the member gets only what is after `offset`: it knows more than this node has heard."""
        self.late = self.late or {}
        self.late[session] = offset

    def owe(self, session: "Session", skipped: int) -> None:
        """The member's next message of the room has to say that it missed so many (O2)."""
        self.skipped = self.skipped or {}
        self.skipped[session] = self.skipped.get(session, 0) + skipped

    def take_owed(self, session: "Session") -> int:
        """How many it missed; that is settled now."""
        if not self.skipped or session not in self.skipped:
            return 0
        return self.skipped.pop(session)

    def inform(self, session: "Session") -> None:
        """The member knows that it missed something: from now on it gets what comes."""
        self.take_owed(session)
        if self.uninformed is not None:
            self.uninformed.discard(session)
            self.uninformed = self.uninformed or None
        self.dirty = True

    def discard(self, session: "Session") -> None:
        """Removes every trace of a session."""
        self.members.discard(session)
        for kept in (self.late, self.skipped, self.joining):
            if kept:
                kept.pop(session, None)
        self.inform(session)

    @property
    def empty(self) -> bool:
        return not self.members and not self.waiting
