"""An ASGI echo application: what the Autobahn suite talks to. No framework, so that only the protocol is tested.

Under `/publications` it answers as the gateway sends publications: compressed where that was agreed on."""

from collections.abc import Awaitable, Callable
from typing import Any

from app.server.pod import State, own_slot
from app.wire.frames import Frame

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, _published(scope, send) if scope["path"] == "/publications" else send)


async def _live(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.startup":
            own_slot().beat(State.READY)
        else:
            return


async def _echo(receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.disconnect":
            return
        else:
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


def _published(scope: Message, send: Send) -> Send:
    connection = scope["extensions"]["carillon.connection"]["connection"]

    async def publish(message: Message) -> None:
        text = message.get("text")
        if message["type"] != "websocket.send":
            await send(message)
        else:
            payload = message["bytes"] if text is None else text.encode()
            connection.send(Frame(payload, text=text is not None, deflate_from=1))

    return publish
