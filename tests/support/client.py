"""A client of the plain protocol for live tests, on `websockets`: asks, and keeps what comes."""

import asyncio
import json
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import until

DEADLINE = 15.0  # seconds; generous: the machine may be busy


class Refused(AssertionError):
    """The server answered a command with an error."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.code: int = reply["code"]
        super().__init__(str(reply))


class Ended(AssertionError):
    """The connection ended while a reply was awaited."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        super().__init__(f"the connection ended with {code} {reason}")


class Client:
    """`async with Client(stack.ws_url, token=stack.token("ann")) as ann: await ann.subscribe("chat:x")`

    Authenticates by first message where a token is given. Answers pings. `events` holds all but replies and pings."""

    def __init__(self, url: str, *, token: str | None = None, path: str = "/ws", **options: Any) -> None:
        self._url = url + path
        self._token = token
        self._options = options
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 1
        self.welcome: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        #: Where there is one, why the server has closed; None while the connection is open.
        self.close_code: int | None = None

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Connects and authenticates; also again after a loss."""
        self.close_code = None
        self._socket: ClientConnection = await connect(self._url, proxy=None, ping_interval=None, **self._options)
        self.welcome = json.loads(await asyncio.wait_for(self._socket.recv(), DEADLINE))
        self._reader = asyncio.create_task(self._read())
        if self._token is not None:
            await self.ask("auth", token=self._token)
        return self

    @property
    def compressed(self) -> bool:
        """Whether an extension was agreed on; `websockets` offers permessage-deflate unless told not to."""
        return bool(self._socket.protocol.extensions)

    async def close(self) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                event = json.loads(frame)
                reply = self._replies.pop(event.get("id"), None)
                if reply is not None:
                    reply.set_result(event)
                elif event["type"] == "ping":
                    await self._socket.send('{"type":"pong"}')
                else:
                    self.events.append(event)
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self._socket.close_code
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(Ended(self._socket.close_code, self._socket.close_reason))
            self._replies.clear()

    async def send(self, message: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(message))

    async def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        """The reply to a command. Raises Refused for an error."""
        id = self._next_id
        self._next_id += 1
        reply = self._replies[id] = asyncio.get_running_loop().create_future()
        await self.send({"type": type, "id": id, **fields})
        answer: dict[str, Any] = await asyncio.wait_for(reply, DEADLINE)
        if answer["type"] == "error":
            raise Refused(answer)
        return answer

    async def subscribe(self, room: str) -> dict[str, Any]:
        return await self.ask("subscribe", room=room)

    async def publish(self, room: str, data: Any, **fields: Any) -> dict[str, Any]:
        return await self.ask("publish", room=room, data=data, **fields)

    def messages(self, room: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "message" and event["room"] == room]

    def data(self, room: str) -> list[Any]:
        """What was heard in a room, in order; without what only tells an own position."""
        return [message["data"] for message in self.messages(room) if "data" in message]

    async def heard(self, room: str, count: int, timeout: float = DEADLINE) -> list[Any]:
        """Waits until so many publications of the room have come, and returns all."""
        await until(lambda: len(self.data(room)) >= count, f"{count} publications of {room}", timeout)
        return self.data(room)

    async def event(self, type: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Waits for the first event of a type."""
        await until(lambda: any(event["type"] == type for event in self.events), f"an event {type}", timeout)
        return next(event for event in self.events if event["type"] == type)

    async def closed(self, timeout: float = DEADLINE) -> int:
        """Waits for the end of the connection; returns its close code."""
        await asyncio.wait((self._reader,), timeout=timeout)
        assert self.close_code is not None, f"still connected after {timeout} s"
        return self.close_code


async def open_all(clients: list[Client], at_once: int = 25) -> None:
    """Opens many clients, a few at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(client: Client) -> None:
        async with gate:
            await client.open()

    await asyncio.gather(*map(one, clients))


async def close_all(clients: list[Client]) -> None:
    await asyncio.gather(*(client.close() for client in clients))
