"""Writes each gateway pod's connections to it as its deletion cost: a scale-down then takes the emptiest pod."""

import asyncio

import httpx

from app.deletion_cost.connections import TIMEOUT, Unknown, connections
from app.deletion_cost.kube_api import ApiFailed, KubeApi, Pod
from app.telemetry import logs

#: How far a pod's connections may be from its cost: a tenth of it, or so many. Every patch is a write to etcd, and the
#: order among pods that differ by less does not matter.
TOLERANCE, SLACK = 0.1, 10

#: Pods that are asked at once.
ASKED_AT_ONCE = 20

#: Seconds: the longest wait after failures, each of which doubles it.
BACKOFF_MAX = 300.0

log = logs.get("deletion-cost")


def is_outdated(cost: int, now: int) -> bool:
    """Whether the pod's cost says something else than its connections. An empty pod's is exact: it should go first."""
    return cost != 0 if now == 0 else abs(now - cost) > max(SLACK, TOLERANCE * cost)


class Writer:
    """`await Writer(api, selector, interval=30, rate=5).run()`: never returns, and outlives whatever the API does."""

    def __init__(self, api: KubeApi, selector: str, *, interval: float, rate: float) -> None:
        self._api = api
        self._selector = selector
        self._interval = interval
        self._pause = 1 / rate

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self.look()
                if failures:
                    log.info("the API answers again", failures=failures)
                failures = 0
            except ApiFailed as error:
                failures += 1
                missing = {"missing_right": error.missing} if error.missing else {}
                log.warning("the API failed", error=str(error), failures=failures, **missing)
            await asyncio.sleep(min(self._interval * 2 ** min(failures, 10), max(self._interval, BACKOFF_MAX)))

    async def look(self) -> None:
        """Asks every pod once, and writes what has changed, the emptiest pods first. Raises ApiFailed."""
        async with self._api.session() as session:
            pods = [pod for pod in await session.pods(self._selector) if pod.may_be_chosen]
            if not pods:
                log.warning("no pod runs that has these labels", selector=self._selector)
            for now, pod in sorted(await _asked(pods), key=lambda found: found[0]):
                if is_outdated(pod.cost, now):
                    await session.set_cost(pod.name, now)
                    await asyncio.sleep(self._pause)


async def _asked(pods: list[Pod]) -> list[tuple[int, Pod]]:
    """Each pod with its connections, without those that cannot be asked: they keep the cost that they have. What is
    not known to be empty should not go first for that; what is not ready goes first anyway, whatever its cost."""
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    unknown: dict[str, str] = {}

    async def ask(pod: Pod) -> tuple[int, Pod] | None:
        url = pod.metrics_url()
        try:
            if url is None:
                raise Unknown("has no address yet, or no port called internal")
            async with places:
                return await connections(client, url), pod
        except Unknown as error:
            unknown[pod.name] = str(error)
            return None

    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
        found = await asyncio.gather(*map(ask, pods))
    if unknown:
        name = min(unknown)
        log.warning("pods cannot be asked", pods=len(unknown), one=name, error=unknown[name])
    return [one for one in found if one is not None]
