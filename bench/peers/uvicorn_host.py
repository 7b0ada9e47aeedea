"""How the ASGI peers are served: uvicorn as `pip install uvicorn[standard]` gives it, in this process, quiet."""

from typing import Any

import uvicorn

from bench.peers import arguments


def serve(app: Any) -> None:
    """Serves `app` on the port that the command line names, until SIGTERM."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port(),
        # What `auto` chooses with [standard]; named, so that a missing package fails and nothing else is measured.
        # For WebSockets `auto` is the sans-I/O class. Its pings (every 20 s) and limits stay as they are.
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,  # seconds; by default an open WebSocket keeps the process for ever
    )
