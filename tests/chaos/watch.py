"""Looks at the pods during a fault: whether a node is deaf, and until when."""

import asyncio
from contextlib import suppress
from time import monotonic

import httpx

from tests.chaos.site import Site

#: Seconds.
EVERY = 0.25
TIMEOUT = 1.0

#: What the probe says of a worker that does not hear the broker.
DEAF = {"deaf", "broker_unreachable"}


class Watch:
    """`async with Watch(site) as watch: ...`"""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._task: asyncio.Task[None] | None = None
        #: When a worker was last seen that was deaf; 0: never.
        self.last_deaf = 0.0
        self.looks = 0

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
            while True:
                await asyncio.gather(*(self._look(http, port) for port in self._site.ports()))
                self.looks += 1
                await asyncio.sleep(EVERY)

    async def _look(self, http: httpx.AsyncClient, port: int) -> None:
        with suppress(httpx.HTTPError):  # a pod that has ended, or a worker that is frozen
            workers = (await http.get(f"http://127.0.0.1:{port}/readyz")).json()["workers"]
            if any(worker["state"] in DEAF for worker in workers):
                self.last_deaf = monotonic()
