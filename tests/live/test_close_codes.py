"""Why the server closed is seen by the client, also by one that is still sending, and through Nginx."""

from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.stack import Stack

TIMES = 10  # a reset that overtakes the close frame is a matter of luck


async def test_a_message_far_too_large_is_told_so_through_nginx(stack: Stack) -> None:
    for _ in range(TIMES):
        async with connect(f"{stack.ws_url}/ws", proxy=None, compression=None) as client:
            await client.recv()
            with suppress(ConnectionClosed):  # while it sends, if it is not done before
                await client.send("x" * 5_000_000)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
