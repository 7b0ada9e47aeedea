"""Where the primaries are: asked of Sentinels or of a Cluster, over short-lived connections."""

import asyncio
import random
from binascii import crc_hqx
from collections.abc import Iterable
from ssl import SSLContext

import structlog

from app.broker.connection import Argument, Connection, ConnectionLost, Reply, ReplyError, connect
from app.broker.url import Address, BrokerUrl, Login

log = structlog.get_logger()

SLOTS = 16_384

# Slots of a cluster and the primary that serves them: first, last, address.
SlotRange = tuple[int, int, Address]


class NotFound(OSError):
    """Nobody who was asked knows a primary."""


def slot_of(key: bytes) -> int:
    """The slot of a key or sharded channel: CRC16 of its hash tag (Redis Cluster specification)."""
    opening = key.find(b"{") + 1
    closing = key.find(b"}", opening) if opening else -1
    return crc_hqx(key[opening:closing] if closing > opening else key, 0) % SLOTS


async def find_master(url: BrokerUrl, timeout: float) -> Address:
    """The primary, as the first Sentinel that answers knows it. Raises NotFound."""
    for address in random.sample(url.addresses, len(url.addresses)):
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.master)
        answer = await _ask(address, url.sentinel_login, url.tls, timeout / len(url.addresses), *command)
        if answer:
            return Address(answer[0].decode(), int(answer[1]))
    raise NotFound("no Sentinel answered with a master of this name")


async def find_slots(url: BrokerUrl, known: Iterable[Address], timeout: float) -> list[SlotRange]:
    """Which primary serves which slots, as the first node that answers sees it. Raises NotFound."""
    nodes = list(dict.fromkeys((*known, *url.addresses)))
    random.shuffle(nodes)
    for address in nodes:
        answer = await _ask(address, url.login, url.tls, timeout / len(nodes), "CLUSTER", "SLOTS")
        if answer:
            # A node that does not know its own address leaves the host empty.
            return [
                (first, last, Address((primary[0] or b"").decode() or address.host, primary[1]))
                for first, last, primary, *_ in answer
            ]
    raise NotFound("no node of the cluster answered")


async def _ask(
    address: Address, login: Login, tls: SSLContext | None, timeout: float, *command: Argument
) -> Reply | None:
    try:
        async with asyncio.timeout(timeout):
            connection = await connect(lambda: Connection(timeout), address, login, tls=tls)
            try:
                return await connection.call(*command)
            finally:
                connection.abort()
    except (OSError, ReplyError, ConnectionLost) as error:
        log.info("broker.no_answer", host=address.host, port=address.port, reason=str(error) or type(error).__name__)
        return None
