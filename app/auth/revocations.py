"""Which tokens are good no more although they have not expired: a list that every node has in memory."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from app import codes
from app.auth.permissions import Claims
from app.broker.base import Broker
from app.codes import CommandError
from app.telemetry import logs
from app.telemetry.logs import Limited
from app.wire.versioned import UnknownVersion, Versioned

log = Limited(logs.get("revocations"))

#: Entries of the list: what a node reads when it starts, and holds (about 20 MB).
MOST = 100_000

#: Entries dealt with in one turn of the event loop; about 1 ms.
AT_ONCE = 1000


class _Token(Struct, tag="token", array_like=True, frozen=True):
    """One token, by its `jti`."""

    jti: str


class _User(Struct, tag="user", array_like=True, frozen=True):
    """All tokens of a user that were issued before a moment; those that do not say when too."""

    user: str
    before: float


_entry: Versioned[_Token | _User] = Versioned(_Token | _User, b"1")


@dataclass(slots=True)
class _Before:
    issued: float
    until: float


class Revocations:
    """What is revoked, from the broker's list, and the question that each handshake asks: no I/O, two looks into dicts.

    Entries end with the tokens that they are about. `now` tells Unix time."""

    def __init__(self, broker: Broker, leeway: float, *, now: Callable[[], float] = time.time) -> None:
        """`leeway`: seconds that a token is accepted after its `exp`."""
        self._broker = broker
        self._leeway = leeway
        self._now = now
        self._tokens: dict[str, float] = {}
        self._users: dict[str, _Before] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._users)

    def refuse(self, claims: Claims) -> bool:
        """Whether these are the claims of a revoked token."""
        if claims.jti in self._tokens:
            return True
        known = self._users.get(claims.user)
        return known is not None and (claims.issued_at is None or claims.issued_at < known.issued)

    async def revoke_token(self, jti: str, expires_at: float) -> tuple[bytes, float]:
        """Stores it for all nodes; returns what they are to `note`. Raises CommandError 100, 106."""
        return await self._store(_Token(jti), expires_at)

    async def revoke_user(self, user: str, issued_before: float, expires_at: float) -> tuple[bytes, float]:
        """The same for tokens of a user."""
        return await self._store(_User(user, issued_before), expires_at)

    async def _store(self, revoked: _Token | _User, expires_at: float) -> tuple[bytes, float]:
        entry, until = _entry.pack(revoked), expires_at + self._leeway
        if not await self._broker.revoke(entry, until, MOST):
            raise CommandError(codes.LIMIT_EXCEEDED, f"{MOST} revocations are in force already")
        return entry, until

    def note(self, entry: bytes, until: float) -> None:
        """From now on this is refused. An entry of a newer release is left to the nodes that know it."""
        try:
            revoked = _entry.unpack(entry)
        except UnknownVersion as error:
            log.warning("revocation.unreadable", error=str(error))
            return
        if until <= self._now():
            return
        if isinstance(revoked, _Token):
            self._tokens[revoked.jti] = max(until, self._tokens.get(revoked.jti, until))
        else:
            known = self._users.setdefault(revoked.user, _Before(revoked.before, until))
            known.issued, known.until = max(known.issued, revoked.before), max(known.until, until)

    async def load(self) -> None:
        """Takes over the broker's list, and puts back what it has lost: nothing known is forgotten before its time.

        Raises BrokerUnavailable."""
        listed = await self._broker.revoked()
        for number, (entry, until) in enumerate(listed.items(), 1):
            self.note(entry, until)
            await _let_others_run(number)
        for number, (revoked, until) in enumerate(self._known(), 1):
            entry = _entry.pack(revoked)
            if entry not in listed:
                await self._broker.revoke(entry, until, MOST)
            await _let_others_run(number)

    def _known(self) -> list[tuple[_Token | _User, float]]:
        tokens: list[tuple[_Token | _User, float]] = [(_Token(jti), until) for jti, until in self._tokens.items()]
        return tokens + [(_User(user, before.issued), before.until) for user, before in self._users.items()]

    def prune(self) -> None:
        """Forgets what has expired."""
        now = self._now()
        self._tokens = {jti: until for jti, until in self._tokens.items() if until > now}
        self._users = {user: before for user, before in self._users.items() if before.until > now}


async def _let_others_run(number: int) -> None:
    if number % AT_ONCE == 0:
        await asyncio.sleep(0)
