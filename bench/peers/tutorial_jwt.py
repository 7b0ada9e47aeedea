"""The tutorial's manager behind a JWT in the query, as its readers add it: a dependency, PyJWT, and a first message.

BENCH_JWT_ALGORITHM is HS256 or EdDSA, BENCH_JWT_KEY the secret or the public key in PEM (`credentials.py`)."""

import os
from typing import Annotated

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Depends, FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException, status

from bench.peers.tutorial import ConnectionManager
from bench.peers.uvicorn_host import serve

ALGORITHM = os.environ["BENCH_JWT_ALGORITHM"]
SECRET = os.environ["BENCH_JWT_KEY"]
#: Read once: PyJWT would read PEM again for every token.
KEY = SECRET if ALGORITHM == "HS256" else load_pem_public_key(SECRET.encode())

app = FastAPI()
manager = ConnectionManager()


async def current_user(token: Annotated[str, Query()]) -> str:
    try:
        claims = jwt.decode(token, KEY, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION) from None
    return claims["sub"]


@app.websocket("/ws")
async def chat(websocket: WebSocket, user: Annotated[str, Depends(current_user)]) -> None:
    await manager.connect(websocket)
    try:
        await websocket.send_json({"type": "welcome", "user": user})
        while True:
            await manager.broadcast(await websocket.receive_text())
    except WebSocketDisconnect:
        manager.disconnect(websocket)


if __name__ == "__main__":
    serve(app)
