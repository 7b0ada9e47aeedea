"""What one client missed, got twice or in the wrong order in its room: from what it was told alone.

In a room with history offsets rise by one, so everything after the position that a client began at must come, once and
in order, up to the room's newest position at the end. Without history there is a number in each publication instead,
which rises by one for each publisher: what is missing between two of them was lost; what came before the first or after
the last one that was heard is not known."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Findings:
    """Counts of publications; `told`, `recovered`: how often the client was told so."""

    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    #: Left out for a slow client, and said so.
    skipped: int = 0
    #: `recovered: false` or `insufficient`: something may be missing, and the client knows it.
    told: int = 0
    recovered: int = 0


class _Row:
    """Numbers that should rise by one."""

    __slots__ = ("missing", "next")

    def __init__(self, next_: int) -> None:
        self.next = next_
        self.missing: set[int] = set()

    def expect_until(self, number: int) -> None:
        self.missing.update(range(self.next, number))
        self.next = max(self.next, number)

    def take(self, number: int, findings: Findings) -> None:
        if number >= self.next:
            self.expect_until(number)
            self.next = number + 1
        elif number in self.missing:
            self.missing.discard(number)
            findings.disordered += 1
        else:
            findings.repeated += 1


class Membership:
    """One client in one room, over all of its connections."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.epoch: str | None = None
        self._row = _Row(0)
        self._lines: dict[str, _Row] = {}

    @property
    def has_history(self) -> bool:
        return bool(self.epoch)

    @property
    def offset(self) -> int:
        """The last one it has; with `epoch` what it says when it comes back."""
        return self._row.next - 1

    def begin(self, epoch: str, offset: int, recovered: bool | None) -> None:
        """A reply to `subscribe`. `recovered` None: it says nothing of it, as the client has been nowhere yet. Of one
        that has, a server that is silent has excused nothing: what is between is expected."""
        if recovered is not False and self.has_history and epoch == self.epoch:
            self.findings.recovered += recovered is True
            self._row.expect_until(offset + 1)
            return
        self.findings.told += self.epoch is not None and recovered is False
        self.go_on(epoch, offset)

    def insufficient(self, epoch: str, offset: int) -> None:
        """The server has said that something may be missing, and where it goes on."""
        self.findings.told += 1
        self.go_on(epoch, offset)

    def go_on(self, epoch: str, offset: int) -> None:
        self._settle()
        self.epoch = epoch
        self._row = _Row(offset + 1)
        self._lines = {}

    def hear(self, offset: int, line: str, number: int, skipped: int = 0) -> None:
        """A publication; `line` and `number` are its publisher's, empty and 0 where it carries none."""
        self.findings.skipped += skipped
        if self.has_history:
            if skipped:
                self._row.next += skipped
            self._row.take(offset, self.findings)
        elif line in self._lines:
            if skipped:  # nobody says whose they were
                self._lines = {line: _Row(number)}
            self._lines[line].take(number, self.findings)
        elif line:
            self._lines[line] = _Row(number + 1)

    def has_reached(self, offset: int) -> bool:
        """Whether it has this one, or a later one."""
        return self._row.next > offset

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing before the last one that it has."""
        return not self._row.missing

    def end(self, offset: int) -> Findings:
        """Nothing more comes; `offset` is the newest one of the room, 0 where it has no history."""
        if self.has_history:
            self._row.expect_until(offset + 1)
        self._settle()
        return self.findings

    def _settle(self) -> None:
        rows = (self._row, *self._lines.values())
        self.findings.lost += sum(len(row.missing) for row in rows)
        for row in rows:
            row.missing.clear()


def newest(tops: Mapping[str, tuple[str, int]], room: str, epoch: str, offset: int) -> int:
    """The newest offset that is known: the room's own word, and what publishers were answered (`tops`)."""
    known = tops.get(room)
    return max(offset, known[1]) if known and known[0] == epoch else offset
