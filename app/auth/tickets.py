"""One-time tickets: what a browser puts in a query string where a token must not stand."""

import hashlib
import re
import secrets
import time
from collections.abc import Callable

import msgspec

from app.auth.permissions import Claims
from app.broker.base import Broker

_BYTES = 24  # 192 bits; 32 characters

_FORM = re.compile(r"[A-Za-z0-9_-]{32}")


class Tickets:
    """Tickets of `ttl` seconds, each good for one connection to any node of the cluster.

    The broker keeps only a hash of each: who can read it cannot use them."""

    def __init__(self, broker: Broker, ttl: float, *, now: Callable[[], float] = time.time) -> None:
        self._broker = broker
        self._ttl = ttl
        self._now = now

    async def issue(self, claims: Claims) -> str:
        """A new ticket for these claims. Raises BrokerUnavailable."""
        ticket = secrets.token_urlsafe(_BYTES)
        await self._broker.put(_key(ticket), msgspec.json.encode(claims), self._ttl)
        return ticket

    async def redeem(self, ticket: str) -> Claims | None:
        """The claims, for the first caller only; None for a ticket that is used, too old or none at all, and where
        the claims have expired since. Raises BrokerUnavailable."""
        if not _FORM.fullmatch(ticket):
            return None
        value = await self._broker.take(_key(ticket))
        if value is None:
            return None
        claims = msgspec.json.decode(value, type=Claims)
        if claims.expires_at is not None and claims.expires_at <= self._now():
            return None
        return Claims.shared(claims.user, claims.expires_at, claims.rooms, claims.publish, claims.jti, claims.issued_at)


def _key(ticket: str) -> str:
    return "ticket:" + hashlib.sha256(ticket.encode()).hexdigest()
