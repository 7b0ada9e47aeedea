"""Who is in one room, for the broker in process: what the scripts in lua/attend*.lua do, with one node only (A1)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from app.broker.base import Attended, Member, Presence, Present

#: Joins and leaves in one message; more of them come with the next batch.
NEWS_AT_ONCE = 1000


class Attendance:
    """Times are those of the event loop, in seconds."""

    def __init__(self) -> None:
        self._members: dict[str, str] = {}  # session -> user
        self._sessions: Counter[str] = Counter()  # by user
        self._until = 0.0
        self._news: dict[str, tuple[str, float]] = {}  # user -> what is to be told, when it is due

    def enter(self, presence: Presence, now: float, came: Iterable[Member]) -> None:
        for member in came:
            if member.session in self._members:
                continue
            self._members[member.session] = member.user
            self._sessions[member.user] += 1
            if self._sessions[member.user] == 1:
                self._note("joined", member.user, presence, now)

    def leave(self, presence: Presence, due: float, went: Iterable[str]) -> None:
        for session in went:
            user = self._members.pop(session, None)
            if user is None:
                continue
            self._sessions[user] -= 1
            if not self._sessions[user]:
                del self._sessions[user]
                self._note("left", user, presence, due)

    def all_but(self, came: Sequence[Member]) -> set[str]:
        return self._members.keys() - {member.session for member in came}

    def take_news(self, now: float) -> bytes | None:
        """What is due, as it is told."""
        told: dict[str, list[str]] = {}
        for user in [user for user, (_, due) in self._news.items() if due <= now][:NEWS_AT_ONCE]:
            told.setdefault(self._news.pop(user)[0], []).append(user)
        return b"1" + msgspec.json.encode(told) if told else None

    def attended(self, presence: Presence, now: float) -> Attended:
        """The answer to a node that lives."""
        self._until = now + presence.ttl
        due = min((due for _, due in self._news.values()), default=None)
        return Attended(len(self._members), None if due is None else due - now if due > now else presence.batch)

    def present(self, presence: Presence, now: float, limit: int) -> Present:
        """A node that has not said anything for long takes its members with it."""
        if self._until <= now:
            self.leave(presence, now, tuple(self._members))
        members = [Member(user, session) for session, user in list(self._members.items())[:limit]]
        return Present(len(self._members), len(self._sessions), members)

    @property
    def empty(self) -> bool:
        return not self._members and not self._news

    def _note(self, change: str, user: str, presence: Presence, due: float) -> None:
        """A change that takes back one that nobody was told of yet is no news at all. Due times are multiples of the
        batch."""
        if presence.leave_delay is not None and self._news.pop(user, None) is None:
            self._news[user] = change, math.ceil(due / presence.batch) * presence.batch
