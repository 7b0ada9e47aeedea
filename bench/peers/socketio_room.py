"""python-socketio on uvicorn: everybody enters one room at connect, an event of anyone is emitted to the room.

One worker, so the default manager in memory: no message queue is paid for that one process would not need."""

import socketio

from bench.peers.uvicorn_host import serve

ROOM = "bench"

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


@server.event
async def connect(sid: str, environ: dict[str, object]) -> None:
    await server.enter_room(sid, ROOM)


@server.event
async def message(sid: str, data: str) -> None:
    await server.emit("message", data, room=ROOM)


if __name__ == "__main__":
    serve(socketio.ASGIApp(server))
