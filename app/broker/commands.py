"""Runs a command on the primary that owns its key, and again where that is safe."""

import asyncio

from app.broker.backoff import backoff
from app.broker.base import BrokerUnavailable
from app.broker.connection import Argument, Connection, ConnectionLost, NotSent, Reply, ReplyError
from app.broker.scripts import SOURCES
from app.broker.shards import Shards
from app.broker.stats import Stats
from app.telemetry import logs
from app.telemetry.logs import Limited

log = Limited(logs.get("broker"))

# Refusals that may be over in a moment; the server has done nothing.
TEMPORARY = frozenset(
    {"LOADING", "READONLY", "OOM", "MISCONF", "BUSY", "MASTERDOWN", "NOREPLICAS"}
    | {"CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "NOSCRIPT"}
)
LONGEST_PAUSE = 1.0

Command = tuple[Argument, ...]
Failure = ReplyError | ConnectionLost


class Commands:
    """The node's commands, each bounded by `timeout` seconds, repetitions included.

    `patience`: seconds that replicas have to acknowledge; the connection's next commands wait as long."""

    def __init__(self, shards: Shards, stats: Stats, timeout: float, patience: float) -> None:
        self._shards = shards
        self._stats = stats
        self._timeout = timeout
        self._patience = patience

    async def run(self, key: bytes, *command: Argument, again: bool, copies: int = 0) -> Reply:
        """The reply, when so many replicas have what the command wrote. Raises BrokerUnavailable.

        A refusal that may pass is always followed by another attempt; a command that was sent and not answered only
        with `again`: say so where a second time changes nothing (P4)."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        shard = self._shards.of(key)
        connection = shard.commands.connection if shard is not None else None
        if connection is None:
            return await self._insist(key, command, again, copies, None, deadline)
        try:
            reply = await connection.call(*command)
            if copies:
                await self._copied(connection, copies)
            return reply
        except (ReplyError, ConnectionLost) as failure:
            return await self._insist(key, command, again, copies, failure, deadline)

    async def _insist(
        self, key: bytes, command: Command, again: bool, copies: int, failure: Failure | None, deadline: float
    ) -> Reply:
        """Attempts until there is a reply, a final refusal, or no time left."""
        unknown = in_flight = False
        attempt = 0
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if failure is not None:
                        unknown |= isinstance(failure, ConnectionLost) and not isinstance(failure, NotSent)
                        _check(failure, unknown, again)
                        attempt += 1
                        self._stats.retries += 1
                        command = await self._learn_from(failure, key, command, attempt)
                    try:
                        connection = await self._connection(key, failure)
                        in_flight = True
                        reply = await connection.call(*command)
                        if copies:
                            await self._copied(connection, copies)
                        return reply
                    except (ReplyError, ConnectionLost) as error:
                        failure = error
                    in_flight = False
        except TimeoutError:
            raise BrokerUnavailable(_why(failure, unknown or in_flight)) from None

    async def _copied(self, connection: Connection, wanted: int) -> None:
        """Raises BrokerUnavailable where not so many replicas have in time what the connection wrote last."""
        try:
            number = await connection.replicas(wanted, self._patience)
        except ReplyError as error:  # it is a replica itself by now; what it has done for us may be nowhere else
            log.error("broker.refused", reason=str(error))
            raise ConnectionLost from None
        if number < wanted:
            raise BrokerUnavailable(f"outcome unknown: {number} of {wanted} replicas have it")

    async def _learn_from(self, failure: Failure, key: bytes, command: Command, attempt: int) -> Command:
        """Does what makes the next attempt likelier to succeed, and waits; answers the command to send then."""
        code = failure.code if isinstance(failure, ReplyError) else ""
        if code == "NOSCRIPT":  # a server that has not seen the script, or has forgotten it
            sha = command[1]
            assert isinstance(sha, bytes)
            return ("EVAL", SOURCES[sha], *command[2:])
        if code in ("READONLY", "MASTERDOWN") and (shard := self._shards.of(key)) is not None:
            shard.commands.drop()  # a replica by now: find the primary
        if code in ("MOVED", "CLUSTERDOWN"):
            self._shards.astray()
        await asyncio.sleep(backoff(attempt, LONGEST_PAUSE))
        return command

    async def _connection(self, key: bytes, failure: Failure | None) -> Connection:
        """The live connection that the next attempt takes."""
        if isinstance(failure, ReplyError) and failure.code == "ASK":
            # Only this attempt goes to the shard that takes the slot over (Redis Cluster specification).
            shard = self._shards.at(str(failure).rpartition(" ")[2])
            if shard is not None and shard.commands.connection is not None:
                shard.commands.connection.tell("ASKING")
                return shard.commands.connection
        attempt = 0
        while (shard := self._shards.of(key)) is None:  # the topology is not known yet, or has a hole
            attempt += 1
            self._shards.astray()
            await asyncio.sleep(backoff(attempt, LONGEST_PAUSE))
        return await shard.commands.ready()


def _check(failure: Failure, unknown: bool, again: bool) -> None:
    """Raises where there must not be another attempt."""
    final = isinstance(failure, ReplyError) and failure.code not in TEMPORARY
    if final:
        log.error("broker.refused", reason=str(failure))
    if final or (unknown and not again):
        raise BrokerUnavailable(_why(failure, unknown)) from None


def _why(failure: Failure | None, unknown: bool) -> str:
    if unknown:
        return "outcome unknown: the broker did not answer"
    if isinstance(failure, ReplyError):
        return f"the broker refused ({failure.code})"
    return "the broker is away"
