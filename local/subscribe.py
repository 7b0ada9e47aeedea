"""`python -m local.subscribe URL TOKEN`: prints what comes over a plain-protocol WebSocket, one message a line."""

import asyncio
import json
import signal
import sys
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI


async def until_interrupted(url: str, token: str) -> int:
    """Ends at Ctrl-C, also where the process was started with SIGINT ignored, as a shell does in the background: Python
    then leaves the signal alone."""
    task = asyncio.ensure_future(subscribe(url, token))
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


async def subscribe(url: str, token: str) -> int:
    """Comes back as long as the server asks for it in its `goodbye` or is away."""
    try:
        async for socket in connect(url, additional_headers={"Authorization": f"Bearer {token}"}):
            with suppress(ConnectionClosed):
                async for text in socket:
                    message = json.loads(text)
                    if message.get("type") == "ping":
                        await socket.send('{"type":"pong"}')
                    else:
                        print(json.dumps(message), flush=True)
            if 3500 <= (socket.close_code or 1006) < 4000:
                print(f"Closed with {socket.close_code} {socket.close_reason}", file=sys.stderr)
                return 1
    except (InvalidHandshake, InvalidURI) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python -m local.subscribe URL TOKEN")
    sys.exit(asyncio.run(until_interrupted(*sys.argv[1:])))
