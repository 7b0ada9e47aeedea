"""`python -m app smoke`: whether a publication reaches clients of several pods, seen from where clients are."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidURI

CONNECTIONS_PER_POD = 10  # so often a pod that was not met yet is looked for before all is begun anew
STAY_AWAY = 3500  # close codes from here on: nothing would be better next time
RETRY = 1  # seconds until the next attempt where a connect fails: pods may still be starting
FAILURES = (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidMessage)


class SmokeError(Exception):
    """What should have worked did not; the text says what, in one line."""


def run(url: str, *, token: str, room: str, publish: Callable[[str], None], pods: int, timeout: float) -> str:
    """Connects until it has met `pods` pods, publishes into the room, and waits until every connection has it.

    Says what it saw. Raises SmokeError, after `timeout` seconds at the latest, and what `publish` raises."""
    smoke = _Smoke(url, token, room)
    try:
        return asyncio.run(asyncio.wait_for(smoke.run(pods, publish), timeout))
    except TimeoutError:
        raise SmokeError(f"after {timeout:g} s: {smoke.doing}") from None


class _Smoke:
    def __init__(self, url: str, token: str, room: str) -> None:
        self._url, self._token, self._room = url, token, room
        self._clients: list[tuple[str, ClientConnection]] = []
        self.doing = "nothing was done"

    async def run(self, pods: int, publish: Callable[[str], None]) -> str:
        async with AsyncExitStack() as opened:
            while len(self._pods()) < pods:
                if len(self._clients) == pods * CONNECTIONS_PER_POD:
                    await self._begin_anew(opened, pods)
                self._clients.append(await self._connect(opened))
            began = time.monotonic()
            mark = secrets.token_hex(8)
            self.doing = "no answer to a publication"
            await asyncio.to_thread(publish, mark)
            for pod, client in self._clients:
                self.doing = f"a publication into {self._room} did not reach the connection to {pod}"
                await self._receive(client, lambda said: said["type"] == "message" and said["data"] == mark)
            milliseconds = (time.monotonic() - began) * 1000
            return (
                f"{len(self._clients)} connections to {self._named()} had the publication within {milliseconds:.0f} ms"
            )

    async def _begin_anew(self, opened: AsyncExitStack, pods: int) -> None:
        """After an install the edge may for half a minute know only those pods that the DNS knew at first."""
        self.doing = f"{self._url}: {len(self._clients)} connections met {self._named()}, not {pods} pods"
        self._clients.clear()
        await opened.aclose()
        await asyncio.sleep(RETRY)

    def _pods(self) -> set[str]:
        return {pod for pod, _ in self._clients}

    def _named(self) -> str:
        return " and ".join(sorted(self._pods())) or "no pod"

    async def _connect(self, opened: AsyncExitStack) -> tuple[str, ClientConnection]:
        """A new connection, subscribed, and its pod. What is away or not ready is tried again."""
        while True:
            try:
                # An edge that places by what clients say of themselves takes each for another one.
                affinity = {"X-Carillon-Affinity": secrets.token_hex(8)}
                client = await connect(self._url, proxy=None, additional_headers=affinity)
                opened.push_async_callback(client.close)
                welcome = await self._receive(client, lambda said: said["type"] == "welcome")
                await self._ask(client, {"type": "auth", "id": 1, "token": self._token})
                await self._ask(client, {"type": "subscribe", "id": 2, "room": self._room})
            except InvalidURI as error:
                raise SmokeError(str(error)) from None
            except FAILURES as error:
                self.doing = f"{self._url}: {error or type(error).__name__}"
                await asyncio.sleep(RETRY)
            else:
                return welcome["node"].rsplit("-", 2)[0], client

    async def _ask(self, client: ClientConnection, command: dict[str, Any]) -> None:
        await client.send(msgspec.json.encode(command), text=True)
        reply = await self._receive(client, lambda said: said.get("id") == command["id"])
        if reply["type"] != "ok":
            raise _failure(f"{command['type']}: error {reply['code']}, {reply['reason']}", again=reply["temporary"])

    async def _receive(self, client: ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; pings are answered, others do not matter."""
        while True:
            try:
                said = msgspec.json.decode(await client.recv(), type=dict[str, Any])
                kind = said["type"]
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
                raise SmokeError(f"{self._url}: who answers there is no gateway") from None
            if wanted(said):
                return said
            if kind == "goodbye":
                raise _failure(f"goodbye: {said['code']} {said['reason']}", again=said["code"] < STAY_AWAY)
            if kind == "ping":
                await client.send('{"type":"pong"}')


def _failure(text: str, *, again: bool) -> Exception:
    return ConnectionError(text) if again else SmokeError(text)
