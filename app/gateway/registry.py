"""The sessions of one node, by id, by user and by address."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.gateway.session import Session


class Registry:
    """Every map is bounded by live connections (invariant 2)."""

    def __init__(self) -> None:
        self.by_id: dict[str, Session] = {}
        self._by_user: dict[str, set[Session]] = {}
        self.by_address: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, session: "Session") -> None:
        self.by_id[session.id] = session
        self.by_address[session.address] = self.by_address.get(session.address, 0) + 1

    def remove(self, session: "Session") -> None:
        if self.by_id.pop(session.id, None) is None:
            return
        left = self.by_address.get(session.address, 0) - 1
        if left > 0:
            self.by_address[session.address] = left
        else:
            self.by_address.pop(session.address, None)
        if session.claims is not None:
            self._forget_user(session, session.claims.user)

    def identify(self, session: "Session", user: str) -> None:
        """The session has shown who it is."""
        self._by_user.setdefault(user, set()).add(session)

    def _forget_user(self, session: "Session", user: str) -> None:
        sessions = self._by_user.get(user)
        if sessions is not None:
            sessions.discard(session)
            if not sessions:
                del self._by_user[user]

    def of_user(self, user: str) -> tuple["Session", ...]:
        return tuple(self._by_user.get(user, ()))

    def user_sessions(self) -> Iterable[tuple[str, str]]:
        """(user, session id) of everybody who is authenticated."""
        return [(user, session.id) for user, sessions in self._by_user.items() for session in sessions]
