"""Decides what was lost, repeated or out of order, from the records of a run alone: no clock, no socket.

What a client is entitled to in a room: everything after the position it began at, in order and once, to the end of the
run, whatever happens to its connections; where it was told that this cannot be (`recovered: false`, `insufficient`),
everything after the position it then began at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from app.broker.base import Position
from tests.chaos.records import Began, Event, Heard, Outcome, Publication


class Flaw(Enum):
    """What can be wrong."""

    LOST = "lost"
    REPEATED = "repeated"
    OUT_OF_ORDER = "out of order"
    #: One (room, epoch, offset) stood for two publications: whoever has one of them never gets the other (P3).
    REUSED = "reused"
    #: The history was another one and the client was not told.
    UNTOLD = "untold"
    #: The client was told, and the history was the same all the time.
    NEEDLESS = "told needlessly"
    #: A refused publication was heard.
    GHOST = "refused, yet heard"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, of so many publications."""

    flaw: Flaw
    client: str
    room: str
    what: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.client} in {self.room}: {self.flaw.value} {self.what}"


@dataclass
class Verdict:
    """`findings` is empty where all is well."""

    findings: list[Finding] = field(default_factory=list)
    #: Rooms whose history was lost: another epoch at the end than at the beginning.
    changed_rooms: set[str] = field(default_factory=set)
    #: Memberships (client and room) that were told so, and how many had to be.
    told: int = 0
    affected: int = 0

    def count(self, flaw: Flaw) -> int:
        """Of publications; for `UNTOLD` and `NEEDLESS`, of memberships."""
        return sum(finding.count for finding in self.findings if finding.flaw is flaw)


def check(
    publications: Sequence[Publication], journals: Mapping[str, Sequence[Event]], tops: Mapping[str, Position]
) -> Verdict:
    """`journals`: what each client was told, by its name, from its first `Began` in each room on. `tops`: each room's
    newest position at the end, which all its members must have reached."""
    verdict = Verdict()
    truth = _Truth(publications, verdict.findings)
    for client, journal in journals.items():
        members: dict[str, _Member] = {}
        for event in journal:
            if isinstance(event, Began) and event.room not in members:
                members[event.room] = _Member(client, event, truth)
            elif isinstance(event, Heard | Began):
                members[event.room].take(event)
        for room, member in members.items():
            member.end(tops[room])
            changed = member.first_epoch != tops[room].epoch
            verdict.affected += changed
            verdict.told += member.told > 0
            if changed:
                verdict.changed_rooms.add(room)
            elif member.told:
                member.find(Flaw.NEEDLESS, f"{member.told} times")
            verdict.findings += member.findings
    return verdict


class _Truth:
    """Which publication stands at which position, as publishers and clients know it."""

    def __init__(self, publications: Sequence[Publication], findings: list[Finding]) -> None:
        self._at: dict[tuple[str, Position], int] = {}
        self._of: dict[tuple[int, str], Position] = {}
        self._refused = {one.id for one in publications if one.outcome is Outcome.REFUSED}
        for one in publications:
            if one.position is not None:
                flaw = self.wrong(one.room, one.position, one.id)
                if flaw:
                    findings.append(Finding(flaw, "its publisher", one.room, f"{one.id} at {one.position}"))

    def wrong(self, room: str, position: Position, id: int) -> Flaw | None:
        """What is wrong with this publication at this position, if anything is."""
        if id in self._refused:
            return Flaw.GHOST
        if self._at.setdefault((room, position), id) != id:
            return Flaw.REUSED
        if self._of.setdefault((id, position.epoch), position) != position:
            return Flaw.REPEATED  # it was published twice
        return None


class _Member:
    """One client in one room: where it must go on."""

    def __init__(self, client: str, began: Began, truth: _Truth) -> None:
        self.findings: list[Finding] = []
        self.told = 0
        self.first_epoch = began.epoch
        self._client, self._room = client, began.room
        self._truth = truth
        self._begin(began)

    def _begin(self, began: Began) -> None:
        self._epoch = began.epoch
        self._next = began.offset + 1
        self._seen: dict[int, int] = {}
        self._missing: set[int] = set()

    def find(self, flaw: Flaw, what: str, count: int = 1) -> None:
        self.findings.append(Finding(flaw, self._client, self._room, what, count))

    def take(self, event: Heard | Began) -> None:
        if isinstance(event, Heard):
            self._hear(event.offset, event.id)
        elif event.recovered:
            self._go_on(event)
        else:
            self.told += event.recovered is False
            if event.recovered is None:
                self.find(Flaw.UNTOLD, f"began anew at {event.offset} without having been told to")
            self._settle()
            self._begin(event)

    def _go_on(self, began: Began) -> None:
        """Recovered: what it missed while it was away follows."""
        if began.epoch != self._epoch:
            self.find(Flaw.UNTOLD, f"recovered in epoch {began.epoch} after {self._epoch}")
            self._begin(began)
        self._expect_from(began.offset + 1)

    def _expect_from(self, offset: int) -> None:
        self._missing.update(range(self._next, offset))
        self._next = max(self._next, offset)

    def _hear(self, offset: int, id: int) -> None:
        flaw = self._truth.wrong(self._room, Position(self._epoch, offset), id)
        if flaw:
            self.find(flaw, f"{id} at offset {offset}")
        elif self._seen.get(offset) == id:
            self.find(Flaw.REPEATED, f"offset {offset}")
        elif offset < self._next:
            self._missing.discard(offset)
            self.find(Flaw.OUT_OF_ORDER, f"offset {offset} after {self._next - 1}")
        self._seen[offset] = id
        self._expect_from(offset)
        self._next = max(self._next, offset + 1)

    def _settle(self) -> None:
        """Nothing that is missing comes any more."""
        if self._missing:
            offsets = sorted(self._missing)
            self.find(Flaw.LOST, f"offsets {_ranges(offsets)} of epoch {self._epoch}", len(offsets))
        self._missing = set()

    def end(self, top: Position) -> None:
        if self._epoch != top.epoch:
            self.find(Flaw.UNTOLD, f"still in epoch {self._epoch} at {self._next - 1}, the room is in {top.epoch}")
        else:
            self._expect_from(top.offset + 1)
            self._settle()


def _ranges(offsets: Sequence[int]) -> str:
    """`1-3, 7`: of sorted numbers."""
    runs: list[list[int]] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset - 1:
            runs[-1][1] = offset
        else:
            runs.append([offset, offset])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def summary(findings: Sequence[Finding], most: int = 20) -> str:
    """A few lines for a person: which client lost what."""
    kinds = Counter(finding.flaw.value for finding in findings)
    lines = [f"{count} findings: {kind}" for kind, count in kinds.items()]
    lines += [str(finding) for finding in findings[:most]]
    return "\n".join([*lines, *(["..."] if len(findings) > most else [])])
