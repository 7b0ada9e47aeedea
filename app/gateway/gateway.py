"""One node: its sessions, rooms and access to the broker, and what the application calls to publish."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from app import codes
from app.auth.permissions import Claims, Rights
from app.auth.revocations import Revocations
from app.auth.signed_token import InvalidToken
from app.auth.tickets import Tickets
from app.auth.tokens import TokenVerifier
from app.broker.base import Broker, BrokerUnavailable, History, Position, Present
from app.codes import CommandError, Disconnect
from app.gateway.admission import Admission
from app.gateway.census import Census
from app.gateway.control import Control
from app.gateway.drain import drain
from app.gateway.edges import Edges
from app.gateway.hook_calls import HookCalls
from app.gateway.hub import Hub
from app.gateway.laggards import client_key
from app.gateway.naming import namespace_of, options_of
from app.gateway.neighbours import Neighbours
from app.gateway.presence import Presence
from app.gateway.rates import Rate
from app.gateway.rebalance import Rebalance
from app.gateway.registry import Registry
from app.gateway.revoking import REASON, Revoking
from app.gateway.timers import TimerWheel
from app.offload import OffloadPool
from app.settings import Settings
from app.telemetry import logs, metrics
from app.telemetry.counters import Counters
from app.wire.payload import canonical, checked_json
from app.wire.publication import Publication, pack

if TYPE_CHECKING:
    from app.gateway.session import Enter, Session

log = logs.get("gateway")

#: How often this node says that its users' sessions live, where they are limited (Broker.refresh_users), in seconds.
REFRESH_USERS = 20.0

#: How long the hooks `on_disconnect` may take at the very end; the server waits little longer (N5), in seconds.
LAST_WORDS = 1.5


class Gateway:
    """The node of this process. Made by `create_app`; everything in it lives in one event loop."""

    def __init__(self, settings: Settings, broker: Broker, hooks: HookCalls, node: str, pod: str = "") -> None:
        """`pod`: what the nodes of one pod have in common; empty: this node is a pod by itself."""
        self.settings = settings
        self.node = node
        self.broker = broker
        self.hooks = hooks
        self.counters = Counters()
        self.offload_pool = OffloadPool(settings, self.counters)
        self.registry = Registry()
        self.verifier = TokenVerifier(settings)
        self.revocations = Revocations(broker, settings.token_leeway)
        self.tickets = Tickets(broker, settings.ticket_ttl)
        self.wheel = TimerWheel()
        self._presence = Presence(settings, broker, self._spawn_farewell, self.counters)
        #: Memberships in rooms with presence, by namespace.
        self.presence_sessions = self._presence.sessions
        self.hub = Hub(settings, broker, self.registry, self.counters, self._presence)
        self._revoking = Revoking(
            self.revocations,
            broker,
            self.registry,
            clock=self.now,
            ttl=settings.revocation_ttl,
            tell=lambda entry, until: broker.send_control(self._control.revoked(entry, until)),
        )
        self.rebalance = Rebalance(
            settings,
            self.registry,
            self.counters,
            node=node,
            pod=pod or node,
            tell=lambda load: self._tell_all(self._control.load(load)),
            draining=lambda: self.draining,
        )
        self.edges = Edges(
            self.registry,
            self.spawn,
            tell=lambda edge, window: self._tell_all(self._control.drain_edge(edge, window)),
            slowest=settings.drain_rate,
            clock=self.now,
        )
        self._control = Control(
            self.registry,
            self.hub,
            self.counters,
            node,
            self._tell_all,
            note_revoked=self._revoking.note,
            hear_load=self.rebalance.hear,
            drain_edge=self.edges.hear,
            dev=settings.dev,
        )
        self._census = Census(broker, self._control)
        self._neighbours = Neighbours(broker, self._control, self.unready, self.spawn)
        self.admission = Admission(settings, self.registry)
        self.message_rate = Rate(settings.message_rate, settings.message_burst)
        #: Whether a good token is all that a session needs: nothing has to be waited for.
        self.admits_at_once = not settings.max_user_connections and not hooks.defines("on_connect")
        self.draining = False
        #: Sessions that have an outbox.
        self.slow: set[Session] = set()
        self._publish_rates = {
            name: Rate(options.publish_rate, options.publish_burst) for name, options in settings.namespaces.items()
        }
        self._tasks: set[asyncio.Task[None]] = set()
        #: Those of them that end a session, or say that it left: the drain waits for these (H3).
        self._farewells: set[asyncio.Task[None]] = set()

    # -- life

    async def start(self) -> None:
        """Begins to serve; waits for nothing remote (N2)."""
        await self.broker.start(self)
        await self._revoking.read()  # of a broker in process, which is there already
        self.spawn(self.wheel.run())
        self.spawn(self._revoking.run())
        if self.rebalance.wanted:
            self.spawn(self.rebalance.run())
        if self.settings.max_user_connections:
            self.spawn(self._refresh_users())
        if any(options.presence for options in self.settings.namespaces.values()):
            self.spawn(self._presence.run())
        if self.settings.position_check and any(o.history_size for o in self.settings.namespaces.values()):
            self.spawn(self.hub.position_check.run())

    async def stop(self) -> None:
        """Ends everything that `start` began. What is left of sessions has LAST_WORDS for its `on_disconnect` (H3)."""
        for session in tuple(self.registry.by_id.values()):
            session.end(codes.SHUTDOWN)
            session.lost(codes.SHUTDOWN.code)
        if self._farewells:
            await asyncio.wait(tuple(self._farewells), timeout=LAST_WORDS)
        self._presence.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.offload_pool.close()
        await self.hub.close()
        await self.verifier.close()
        await self.broker.stop()

    async def drain(self, timeout: float) -> None:
        """Takes nobody new, says `goodbye` to all, at a pace (N6), and waits `timeout` seconds at most until they are
        gone, with their `on_disconnect` (H3)."""
        self.draining = True
        await drain(self.registry, self._farewells, timeout, self.settings.drain_rate)

    def now(self) -> float:
        """The event loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    def spawn(self, work: Coroutine[Any, Any, None], context: contextvars.Context | None = None) -> asyncio.Task[None]:
        """Runs something in the background; `stop` ends it."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task.failed", task=task.get_name(), exc_info=error)

    def unready(self) -> str | None:
        """Why this node takes nobody new, or None (N4)."""
        if self.draining:
            return "draining"
        if not self.broker.connected or not self._revoking.current:
            return "broker_unreachable"
        if self.broker.echo_age > self.settings.broker_deaf_after:
            return "deaf"
        return None

    async def is_deaf_alone(self, after: float) -> bool:
        """Whether this node, and not every node, has heard nothing for `after` seconds although the broker answers it,
        and its clients would be better off elsewhere (N1)."""
        return (
            len(self.registry) > 0
            and self.broker.deaf_for > after
            and await self._neighbours.hear()
            and self.broker.deaf_for > after
        )

    # -- sessions

    def add(self, session: "Session", enter: "Enter | None") -> None:
        """A connection was accepted. `enter`: by the credentials of its upgrade, if it had some."""
        self.registry.add(session)
        self.counters.opened["websocket"] += 1
        session.open(enter)

    async def admit(self, session: "Session", claims: Claims) -> None:
        """Lets a session in as the user of its claims. Raises Disconnect where a limit or the hook is against it."""
        if session.ended:
            return
        self.refuse_revoked(claims)
        limit = self.settings.max_user_connections
        if limit:
            if not await self.broker.admit_user(claims.user, session.id, limit):
                self.counters.limit_hits["max_user_connections"] += 1
                raise Disconnect(codes.CONNECTION_LIMIT)
            session.counted = claims.user
        session.claims = claims
        try:
            await self.hooks.connect(session)
        except BaseException:
            session.claims = None
            raise
        if not session.ended:
            self.let_in(session, claims)

    def let_in(self, session: "Session", claims: Claims) -> None:
        """Nothing is against it any more, but what may have come since. Raises Disconnect."""
        self.refuse_revoked(claims)
        session.identified(claims)
        self.registry.identify(session, claims.user)

    def refuse_revoked(self, claims: Claims) -> None:
        """Raises Disconnect where the token is good no more."""
        if self.revocations.refuse(claims):
            raise Disconnect(codes.INVALID_TOKEN, REASON)

    def session_lost(self, session: "Session", code: int, task: asyncio.Task[None] | None) -> None:
        """The session's connection is gone."""
        self.registry.remove(session)
        self.rebalance.forget(session)
        self.counters.closed[code] += 1
        if session.claims is not None or task is not None:
            self._spawn_farewell(self._after_loss(session, code, task))

    def _spawn_farewell(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        farewell = self.spawn(work, context=contextvars.Context())
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)
        return farewell

    async def _after_loss(self, session: "Session", code: int, task: asyncio.Task[None] | None) -> None:
        """Runs `on_disconnect` exactly once, after the command that was under way (H3)."""
        if task is not None:
            await asyncio.wait((task,))
        if session.claims is not None:
            await self.hooks.disconnect(session, code)
        if session.counted is not None:
            await self.broker.dismiss_user(session.counted, session.id)

    async def _refresh_users(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_USERS)
            try:
                await self.broker.refresh_users(list(self.registry.user_sessions()))
            except BrokerUnavailable:
                log.warning("users.not_refreshed")

    # -- what the application calls

    async def publish(
        self,
        room: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Position:
        """Publishes any JSON value to a room, as the server. Returns its position (`("", 0)` without history).

        Raises CommandError: 102 and 107 for a room or data that cannot be, 106 for too much data, 100 where the
        outcome is unknown; then the same `idempotency_key` makes a repetition safe (P4)."""
        return await self.publish_json(
            room,
            msgspec.json.encode(data),
            tags=dict(tags) if tags else None,
            key=key,
            idempotency_key=idempotency_key,
        )

    async def publish_json(
        self,
        room: str,
        data: bytes,
        *,
        sender: "Session | None" = None,
        tags: dict[str, str] | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        ephemeral: bool = False,
    ) -> Position:
        """The same for data that is JSON already and, from a client, checked."""
        options = options_of(room, self.settings)
        if sender is None:
            checked_json(data, options.max_publication_bytes)
        publication = Publication(
            data=Raw(data),
            user=sender.claims.user if sender is not None and sender.claims is not None else None,
            session=sender.id if sender is not None else None,
            key=key,
            tags=tags,
        )
        history: History | None = None
        if options.history_size and not ephemeral:
            history = self.hub.history_of(options)
        began = time.perf_counter()
        try:
            position = await self.broker.publish(
                room,
                pack(publication),
                history=history,
                idempotency_key=idempotency_key,
                data=canonical(data) if idempotency_key is not None else None,
            )
        except CommandError as error:
            # Not 107, an idempotency key that was used with other data: that is the publisher's own mistake.
            self.counters.broker_publish_errors += error.error.temporary
            raise
        finally:
            metrics.BROKER_PUBLISH_SECONDS.observe(time.perf_counter() - began)
        self.counters.published[namespace_of(room)] += 1
        return position

    async def send_to_user(self, user: str, data: Any) -> None:
        """Sends a message to every session of a user, on whichever node; at most once. Raises BrokerUnavailable."""
        await self.send_json_to_user(user, msgspec.json.encode(data))

    async def send_json_to_user(self, user: str, data: bytes) -> None:
        """The same for data that is JSON already. Raises CommandError 106 and 107 too."""
        payload = checked_json(data, self.settings.max_message_bytes)
        await self.broker.send_control(self._control.send_to_user(user, payload))

    async def presence(self, room: str, limit: int | None = None) -> Present:
        """Who is in a room, on all nodes; at most `limit` and `presence_page` of them by name.

        Raises CommandError: 102 and 107 for a room that cannot be, 108 where its namespace has no presence,
        100 where the broker does not answer."""
        return await self._presence.present(room, options_of(room, self.settings), limit)

    async def rooms(self) -> tuple[dict[str, int], int]:
        """Members by room in the whole cluster, and how many nodes have answered. Raises BrokerUnavailable."""
        return await self._census.rooms()

    def too_slow(self, session: "Session") -> None:
        """A session is about to be closed as it does not read. Where it could come back for a replay, all are told."""
        if session.claims is not None and any(room.options.history_size for room in session.rooms.values()):
            self._tell_all(self._control.too_slow(client_key(session.claims.user, session.address)))

    def _tell_all(self, message: bytes) -> None:
        async def tell() -> None:
            with contextlib.suppress(BrokerUnavailable):  # who asked counts who has answered
                await self.broker.send_control(message)

        self.spawn(tell())

    async def disconnect(self, user: str, *, session: str | None = None, reconnect: bool = False) -> None:
        """Ends the sessions of a user, or one of them, on whichever node. Raises BrokerUnavailable.

        With `reconnect` they are told to come back (3011), otherwise to stay away (3503)."""
        await self.broker.send_control(self._control.disconnect(user, session, reconnect))

    async def unsubscribe(self, user: str, room: str, *, session: str | None = None) -> None:
        """Takes the sessions of a user, or one of them, out of a room, on whichever node; they are told `unsubscribed`
        (3503). Their rights stay: who may still subscribe can come back.

        Raises CommandError 102 and 107 for a room that cannot be, 100 where the broker does not answer."""
        options_of(room, self.settings)
        await self.broker.send_control(self._control.unsubscribe(user, room, session))

    async def refresh(self, user: str, rights: Rights | str, *, session: str | None = None) -> None:
        """Gives the sessions of a user, or one of them, new claims on whichever node: those of a token of the same
        user, or some of them. Rooms that are not allowed any more are left (A2).

        Raises CommandError 107 for a token that is not valid or another user's, 100 where the broker does not
        answer."""
        if isinstance(rights, str):
            rights = Rights.of(await self._claims_of(user, rights))
        await self.broker.send_control(self._control.refresh(user, session, rights))

    async def _claims_of(self, user: str, token: str) -> Claims:
        try:
            claims = await self.verifier.verify(token)
        except InvalidToken as error:
            raise CommandError(codes.BAD_REQUEST, f"token: {error}") from None
        if claims.user != user:
            raise CommandError(codes.BAD_REQUEST, "token: it belongs to another user")
        if self.revocations.refuse(claims):
            raise CommandError(codes.BAD_REQUEST, f"token: {REASON}")
        return claims

    async def expire(self, user: str, *, session: str | None = None) -> None:
        """Ends the sessions of a user, or one of them, as if their token had run out (3005): they come back with a new
        one. Raises BrokerUnavailable."""
        await self.broker.send_control(self._control.refresh(user, session, None))

    async def revoke_token(self, jti: str, *, expires_at: float | None = None) -> None:
        """Makes a token worthless before its time: every node refuses it, and ends the sessions that came in with it
        (3500). `expires_at`: its `exp`; None: in `revocation_ttl` seconds.

        Raises CommandError 106 where too many are revoked, 100 where the broker does not answer: then call again."""
        await self._revoking.revoke_token(jti, expires_at)

    async def revoke_user(
        self, user: str, *, issued_before: float | None = None, expires_at: float | None = None
    ) -> None:
        """The same for all tokens of a user whose `iat` is before a Unix time (None: now), or that have none.
        `expires_at`: when the last of them has run out."""
        await self._revoking.revoke_user(user, issued_before, expires_at)

    async def kill(self, node: str) -> None:
        """Ends a node with SIGKILL; only a node in development mode obeys (N7). Raises BrokerUnavailable."""
        await self.broker.send_control(self._control.kill(node))

    def publish_rate(self, namespace: str) -> Rate:
        return self._publish_rates[namespace]

    # -- what the broker calls (broker.base.Sink)

    def publication(self, room: str, position: Position, envelope: bytes) -> None:
        self.hub.publication(room, position, envelope)

    def presence_changed(self, room: str, news: bytes) -> None:
        change = self._presence.change(room, news)
        if change is None:
            self.counters.unreadable["presence"] += 1
        else:
            self.hub.tell(room, change)

    def control(self, message: bytes) -> None:
        self._control.carry_out(message)

    def lost(self) -> None:
        """Readiness and the metrics say so from now on; members are told when it is known what was missed."""
        self._revoking.lost()

    def restored(self, rooms: Collection[str]) -> None:
        self.counters.broker_reconnects += 1
        self._revoking.restored()
        self.hub.restored(rooms)
        self._presence.restored()
