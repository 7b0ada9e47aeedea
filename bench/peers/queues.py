"""A queue and a sender task per client: the usual repair of the tutorial's loop, where one slow client stops all.

The queues are unbounded, as they mostly are: nothing is lost, and nothing is checked."""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers.uvicorn_host import serve

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()


async def send_from(queue: asyncio.Queue[str], websocket: WebSocket) -> None:
    while True:
        await websocket.send_text(await queue.get())


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    sender = asyncio.create_task(send_from(queue, websocket))
    try:
        while True:
            message = await websocket.receive_text()
            for member in queues:
                member.put_nowait(message)
    except WebSocketDisconnect:
        pass
    finally:
        queues.discard(queue)
        sender.cancel()


if __name__ == "__main__":
    serve(app)
