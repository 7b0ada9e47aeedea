"""The broker on Redis >= 7 or Valkey: one server, Sentinel or Cluster, by URL."""

import asyncio
import math
import secrets
from collections.abc import Collection, Sequence
from hashlib import blake2b
from itertools import count

import structlog

from app.broker.base import (
    NO_POSITION,
    USER_TTL,
    Attended,
    Broker,
    BrokerUnavailable,
    History,
    Member,
    Page,
    Position,
    Presence,
    Present,
    Sink,
)
from app.broker.cluster import Cluster
from app.broker.commands import Commands
from app.broker.connection import Argument, Reply
from app.broker.scripts import ADMIT, ATTEND, PRESENT, PUBLISH, READ, REVOKE, Script
from app.broker.seen import Seen
from app.broker.shards import OneShard, ShardMaker, Shards
from app.broker.stats import Stats
from app.broker.subscriber import PLAIN, SHARDED, Interest
from app.broker.url import BrokerUrl, Kind
from app.codes import BAD_REQUEST, TOO_MANY_REQUESTS, CommandError
from app.settings import Settings

log = structlog.get_logger()

# What publishes under way may hold together, beside their number (`broker_max_pending`).
MAX_PENDING_BYTES = 64 * 1024 * 1024

# A publish without a caller's key is repeated for `broker_timeout` seconds; its own key must outlive that.
OWN_KEY_LIVES = 2.0

# Revocations in one reply: 5,000 take the server about a millisecond.
REVOCATIONS_PAGE = 5000

# Replicas have this part of `broker_deaf_after` to acknowledge a publication.
REPLICAS_SHARE = 3

# What stands in the place of epoch and offset where a message says who came and left.
NEWS = b":presence:"


class RedisBroker(Broker):
    """One node's access to the broker.

    A publication goes over the room's channel as `<epoch>:<offset>:<envelope>`, and the envelope begins with its
    format version (P6); who came and left as `:presence:` and a text that begins with one too."""

    def __init__(self, url: BrokerUrl, settings: Settings, node: str) -> None:
        self.stats = Stats()
        self._url = url
        self._settings = settings
        self._node = node
        self._verbs = SHARDED if url.kind is Kind.CLUSTER else PLAIN
        # Tells this process from an earlier one with the same node id.
        self._nonce = secrets.token_hex(8)
        self._sequence = count()
        self._interest = Interest()
        self._seen = Seen(self._interest.rooms)
        self._pending = 0
        self._pending_bytes = 0
        self._echo: asyncio.Task[None] | None = None

    async def start(self, sink: Sink) -> None:
        self._sink = sink
        maker = ShardMaker(
            self._url,
            self._settings,
            self._node,
            self._nonce.encode(),
            self._interest,
            self._seen,
            sink,
            self.stats,
            self._heard,
        )
        self._control = maker.control
        self._shards: Shards = Cluster(maker) if self._url.kind is Kind.CLUSTER else OneShard(maker)
        settings = self._settings
        # A canary behind it must come back in time.
        patience = settings.broker_deaf_after / REPLICAS_SHARE
        self._commands = Commands(self._shards, self.stats, settings.broker_timeout, patience)
        self._shards.start()
        self._echo = asyncio.get_running_loop().create_task(self._listen_to_itself(), name="broker echo")

    async def stop(self) -> None:
        if self._echo is None:
            return
        self._echo.cancel()
        await asyncio.gather(self._echo, return_exceptions=True)
        await self._shards.stop()

    # Hearing

    async def subscribe(self, room: str) -> None:
        channel = self._channel(room)
        interest = self._interest
        confirmed = asyncio.get_running_loop().create_future()
        interest.rooms[channel] = room
        interest.waiting[channel] = confirmed
        if (shard := self._shards.of(channel)) is not None:
            shard.subscriber.add(channel)
        try:
            async with asyncio.timeout(self._settings.broker_timeout):
                await confirmed
        except TimeoutError:
            self._forget(channel)
            raise BrokerUnavailable("the subscription was not confirmed in time") from None
        except BaseException:
            self._forget(channel)
            raise

    async def unsubscribe(self, room: str) -> None:
        self._forget(self._channel(room))

    def _forget(self, channel: bytes) -> None:
        if self._interest.rooms.pop(channel, None) is not None:
            self._seen.left(channel)
        self._interest.waiting.pop(channel, None)
        if (shard := self._shards.of(channel)) is not None:
            shard.subscriber.remove(channel)

    def _heard(self, channel: bytes, data: bytes) -> None:
        room = self._interest.rooms.get(channel)
        if room is None:
            self._heard_own(channel, data)
            return
        self.stats.received += 1
        if data.startswith(b":0:"):
            position, envelope = NO_POSITION, data[3:]
        else:
            try:
                epoch, offset, envelope = data.split(b":", 2)
                position = Position(epoch.decode(), int(offset))
            except ValueError:
                if data.startswith(NEWS):
                    self._sink.presence_changed(room, data[len(NEWS) :])
                else:  # not written by a node
                    self.stats.malformed += 1
                return
            if not self._seen.note(channel, position, envelope):
                self._contradicted(room, position)
                return
        self._sink.publication(room, position, envelope)

    def _contradicted(self, room: str, position: Position) -> None:
        """Offsets were handed out twice: the repair's read ends the epoch (P3)."""
        log.error("broker.other_data", room=room, epoch=position.epoch, offset=position.offset)
        self._sink.restored([room])

    def _heard_own(self, channel: bytes, data: bytes) -> None:
        if channel == self._control:
            self._sink.control(data)
            return
        for shard in self._shards.all:
            if channel == shard.canary:
                shard.heard(data)

    async def _listen_to_itself(self) -> None:
        """Sends the canaries, and acts where one does not come back (R2)."""
        while True:
            for shard in self._shards.all:
                if shard.drop_if_deaf():
                    log.warning("broker.deaf", echo_age=round(min(shard.echo_age, 1e9), 1))
                shard.sing()
            await asyncio.sleep(self._settings.broker_echo_interval)

    @property
    def echo_age(self) -> float:
        if self._echo is None:
            return math.inf
        return max((shard.echo_age for shard in self._shards.all), default=math.inf)

    @property
    def deaf_for(self) -> float:
        return max((shard.deaf_for for shard in self._shards.all), default=0.0) if self._echo is not None else 0.0

    @property
    def connected(self) -> bool:
        shards = list(self._shards.all) if self._echo is not None else []
        return bool(shards) and all(shard.connected for shard in shards)

    # Publishing

    async def publish(
        self,
        room: str,
        envelope: bytes,
        *,
        history: History | None,
        idempotency_key: str | None = None,
        data: bytes | None = None,
    ) -> Position:
        size = len(envelope)
        if self._pending >= self._settings.broker_max_pending or self._pending_bytes + size > MAX_PENDING_BYTES:
            self.stats.publish_errors += 1
            raise CommandError(TOO_MANY_REQUESTS, "too many publications under way")
        self._pending += 1
        self._pending_bytes += size
        try:
            if history is None and idempotency_key is None:
                position = await self._announce(room, envelope)
            else:
                digest = "" if idempotency_key is None else _digest(envelope if data is None else data)
                position = await self._publish(room, envelope, history, idempotency_key, digest)
        except BaseException:
            self.stats.publish_errors += 1
            raise
        finally:
            self._pending -= 1
            self._pending_bytes -= size
        self.stats.publishes += 1
        return position

    async def _announce(self, room: str, envelope: bytes) -> Position:
        """A publication that is not kept and has no key: at most once (P1), so never sent a second time."""
        channel = self._channel(room)
        await self._commands.run(channel, self._verbs.publish, channel, b":0:" + envelope, again=False)
        return NO_POSITION

    async def _publish(
        self, room: str, envelope: bytes, history: History | None, key: str | None, digest: str
    ) -> Position:
        """The script: under the caller's key or one of its own, it takes place once however often it is sent (P4)."""
        settings = self._settings
        channel = self._channel(room)
        if key is None:
            kept_at = b"%b:own:%b:%d" % (channel, self._nonce.encode(), next(self._sequence))
            kept_for = OWN_KEY_LIVES * settings.broker_timeout
        else:
            kept_at = b"%b:idem:%b" % (channel, key.encode())
            kept_for = settings.idempotency_ttl
        seen = self._seen.position(channel)
        result = await self._run(
            PUBLISH,
            (channel + b":meta", channel + b":stream", kept_at),
            self._verbs.publish,
            channel,
            envelope,
            digest,
            _ms(kept_for),
            *((history.size, _ms(history.ttl), _ms(history.meta_ttl)) if history else (0, 0, 0)),
            int(settings.broker_trust_restart),
            seen.epoch,
            seen.offset,
            copies=settings.broker_wait_replicas,
        )
        if result is None:
            raise CommandError(BAD_REQUEST, "idempotency key was used with other data")
        position = _position(result)
        if history is not None:
            # A repetition of the caller's may be answered for the first one's envelope.
            self._seen.note(channel, position, envelope if key is None else None)
        return position

    async def read(
        self,
        room: str,
        history: History,
        *,
        since: int | None,
        limit: int,
        reverse: bool = False,
        max_bytes: int = 0,
    ) -> Page:
        channel = self._channel(room)
        doubts = self._seen.doubts
        seen = self._seen.position(channel)
        expected = self._seen.hash_in_doubt(channel)
        top, cut, hole, there, *rest = await self._run(
            READ,
            (channel + b":meta", channel + b":stream"),
            _ms(history.meta_ttl),
            int(self._settings.broker_trust_restart),
            seen.epoch,
            seen.offset,
            int(expected is not None),
            int(reverse),
            "" if since is None else since,
            limit,
            max_bytes,
        )
        if there is not None and hash(there) != expected:
            log.error("broker.other_data", room=room, epoch=seen.epoch, offset=seen.offset)
            self._seen.distrust(channel)
            return await self.read(room, history, since=since, limit=limit, reverse=reverse, max_bytes=max_bytes)
        if hole:
            log.error("broker.hole", room=room)
            self.stats.holes += 1
        publications = list(zip(map(int, rest[::2]), rest[1::2], strict=True))
        page = Page(_position(top), publications, bool(cut))
        newest = publications[0 if reverse else -1] if publications else (0, None)
        self._seen.settle(channel, page.top, newest[1] if newest[0] == page.top.offset else None, doubts)
        return page

    async def send_control(self, message: bytes) -> None:
        await self._commands.run(self._control, self._verbs.publish, self._control, message, again=False)

    # Tickets and users

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        name = self._key("kept", key)
        await self._commands.run(name, "SET", name, value, "PX", _ms(ttl), again=True)

    async def take(self, key: str) -> bytes | None:
        name = self._key("kept", key)
        value: bytes | None = await self._commands.run(name, "GETDEL", name, again=False)
        return value

    async def admit_user(self, user: str, session: str, limit: int) -> bool:
        return bool(await self._run(ADMIT, (self._key("user", user),), session, USER_TTL, limit))

    async def refresh_users(self, sessions: Collection[tuple[str, str]]) -> None:
        await asyncio.gather(
            *(self._run(ADMIT, (self._key("user", user),), session, USER_TTL, -1) for user, session in sessions)
        )

    async def dismiss_user(self, user: str, session: str) -> None:
        name = self._key("user", user)
        try:
            await self._commands.run(name, "ZREM", name, session, again=True)
        except BrokerUnavailable as error:
            log.info("broker.dismiss_failed", reason=error.reason)  # it stops counting by itself

    async def revoke(self, entry: bytes, until: float, limit: int) -> bool:
        return bool(await self._run(REVOKE, (self._key("tokens", "revoked"),), entry, repr(until), limit))

    async def revoked(self) -> dict[bytes, float]:
        # From the end that lives longest: what runs out meanwhile is at the other, so that no entry slips off a page.
        name = self._key("tokens", "revoked")
        found: dict[bytes, float] = {}
        start = 0
        while True:
            stop = start + REVOCATIONS_PAGE - 1
            page = await self._commands.run(name, "ZRANGE", name, start, stop, "REV", "WITHSCORES", again=True)
            found.update(zip(page[::2], map(float, page[1::2]), strict=True))
            if len(page) < 2 * REVOCATIONS_PAGE:
                return found
            start += REVOCATIONS_PAGE

    # Presence

    async def attend(
        self,
        room: str,
        presence: Presence,
        *,
        came: Sequence[Member] = (),
        went: Sequence[str] = (),
        whole: bool = False,
    ) -> Attended:
        channel = self._channel(room)
        sessions, news_in = await self._run(
            ATTEND,
            _presence_keys(channel),
            *_news_times(presence),
            self._nonce,
            _ms(presence.ttl),
            int(whole),
            self._verbs.publish,
            channel,
            len(came),
            *(argument for member in came for argument in (member.session, member.user)),
            *went,
        )
        return Attended(sessions, None if news_in < 0 else news_in / 1000)

    async def present(self, room: str, presence: Presence, limit: int) -> Present:
        keys = _presence_keys(self._channel(room))
        sessions, users, named = await self._run(PRESENT, keys, *_news_times(presence), limit)
        members = [
            Member(user.partition(b":")[2].decode(), session.decode())
            for session, user in zip(named[::2], named[1::2], strict=True)
        ]
        return Present(sessions, users, members)

    async def _run(self, script: Script, keys: tuple[bytes, ...], *args: Argument, copies: int = 0) -> Reply:
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return await self._commands.run(keys[0], *command, again=True, copies=copies)

    def _channel(self, room: str) -> bytes:
        """The room's channel; its keys begin with the same, so that all of a room is on one shard."""
        return f"{self._settings.key_prefix}{{{room}}}".encode()

    def _key(self, kind: str, name: str) -> bytes:
        return f"{self._settings.key_prefix}{kind}:{name}".encode()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _news_times(presence: Presence) -> tuple[int, int]:
    delay = -1 if presence.leave_delay is None else math.ceil(presence.leave_delay * 1000)
    return delay, _ms(presence.batch)


def _presence_keys(channel: bytes) -> tuple[bytes, ...]:
    return tuple(channel + b":presence:" + kind for kind in (b"members", b"users", b"nodes", b"counts", b"news"))


def _position(result: bytes) -> Position:
    epoch, _, offset = result.decode().partition(":")
    return Position(epoch, int(offset)) if epoch else NO_POSITION
