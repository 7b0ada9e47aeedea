"""A connection as hooks see it."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from structlog.stdlib import BoundLogger

from app import codes
from app.auth.permissions import Claims
from app.broker.base import NO_POSITION
from app.codes import CloseCode
from app.gateway.delivery import Delivery
from app.gateway.naming import USER_PREFIX
from app.gateway.outbox import Entry
from app.settings import SlowConsumer
from app.telemetry import logs
from app.wire.payload import checked_json
from app.wire.publication import Publication

if TYPE_CHECKING:
    from app.gateway.gateway import Gateway
    from app.gateway.session import Session


class Client:
    """One client. A new object for each call of a hook, equal to those of the same connection."""

    __slots__ = ("_session",)

    def __init__(self, session: "Session") -> None:
        self._session = session

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client) and other._session is self._session

    def __hash__(self) -> int:
        return hash(self._session)

    def __repr__(self) -> str:
        return f"Client(user={self.user!r}, session={self.session!r})"

    @property
    def user(self) -> str:
        return self.claims.user

    @property
    def claims(self) -> Claims:
        """What its token says."""
        claims = self._session.claims
        assert claims is not None, "no hook runs before the credentials were verified"
        return claims

    @property
    def session(self) -> str:
        """The connection's id, as in `welcome`: another one after each reconnect."""
        return self._session.id

    @property
    def address(self) -> str:
        """Its network address, behind trusted proxies the real one."""
        return self._session.address

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that it is in at this moment: none any more in `on_disconnect`."""
        return tuple(self._session.rooms)

    @property
    def gateway(self) -> "Gateway":
        """This node: `await client.gateway.publish(room, data)`, `send_to_user`, `presence`, `disconnect`, ..."""
        return self._session.gateway

    @property
    def state(self) -> dict[str, Any]:
        """What hooks want to keep with the connection, until it ends. Empty at first."""
        session = self._session
        if session.hook_state is None:
            session.hook_state = {}
        return session.hook_state

    @property
    def log(self) -> BoundLogger:
        """A logger whose lines say which session and user they are about."""
        return logs.get("hooks").bind(session=self.session, user=self.user)

    async def send(self, data: Any) -> None:
        """Sends any JSON value to this connection only, as a `message` of the room `#` and the user.

        Nothing happens where the connection is over. Raises CommandError 107 for data that is no JSON, 106 above
        `max_message_bytes`."""
        session = self._session
        payload = checked_json(msgspec.json.encode(data), session.gateway.settings.max_message_bytes)
        delivery = Delivery(USER_PREFIX + self.user, NO_POSITION, Publication(Raw(payload)))
        session.deliver(Entry(delivery.frame(session.format), delivery), SlowConsumer.DISCONNECT)

    async def disconnect(self, close: CloseCode = codes.FORCE_DISCONNECT, reason: str | None = None) -> None:
        """Ends this connection, with one of the codes in `app.codes`; by default the client stays away."""
        self._session.end(close, reason)
