"""Many clients publish by socket and over HTTP: everybody in the room hears everything once, in one order."""

import asyncio

from tests.support.client import Client
from tests.support.stack import Stack


async def everybody_hears_all(stack: Stack, clients: list[Client], room: str, publications: int) -> None:
    """Invariant 1. The room keeps history; the first ten clients publish half, and do not hear their own."""
    await asyncio.gather(*(client.subscribe(room) for client in clients))
    publishers = clients[:10]
    each = publications // 20

    async def by_socket(publisher: Client, name: str) -> None:
        for number in range(each):
            await publisher.publish(room, [name, number])

    def by_http(name: str) -> None:
        for number in range(each):
            stack.publish(room, [name, number])

    await asyncio.gather(
        *(by_socket(publisher, f"socket-{n}") for n, publisher in enumerate(publishers)),
        *(asyncio.to_thread(by_http, f"http-{n}") for n in range(10)),
    )
    # A publisher does not hear its own; as its messages tell the position, it sees all offsets all the same.
    heard = [client for client in clients if client not in publishers]
    reference = await heard[0].heard(room, publications, timeout=30)
    assert len({tuple(item) for item in reference}) == publications
    for client in heard:
        assert await client.heard(room, publications, timeout=30) == reference
    for client in clients:
        offsets = [message["offset"] for message in client.messages(room)]
        assert offsets == list(range(offsets[0], offsets[0] + publications))
    for publisher in ("socket-3", "http-3"):
        assert [number for name, number in reference if name == publisher] == list(range(each))
