"""What happens to pods, workers, Nginx, and the way from a pod to the broker."""

import asyncio
import os
import signal
from time import monotonic

from tests.chaos.site import REMOTE_POD, Single, Site
from tests.support.scrape import sample
from tests.support.waiting import until

#: Seconds that something is frozen, cut off or slow.
FROZEN = 10.0
CUT = 3.0
#: Each way.
LATE = 0.3
HALVED_AT_MOST = 15.0

WORKERS = 2


async def ready(site: Site) -> None:
    await asyncio.to_thread(site.stack.wait_ready)


async def _busiest(site: Site) -> int:
    """The pod with the most clients: after some faults there are pods without any."""
    clients = {pod: await asyncio.to_thread(sample, site.stack, "carillon_connections", pod) for pod in site.running}
    return max(clients, key=clients.__getitem__)


async def kill_a_worker(site: Site) -> None:
    """Gunicorn starts another one."""
    pod = await _busiest(site)
    workers = site.stack.worker_pids(pod)
    killed = site.stack.kill_worker(pod)
    await until(lambda: _is_replaced(killed, site.stack.worker_pids(pod), len(workers)), "another worker")
    await ready(site)


def _is_replaced(killed: int, workers: list[int], wanted: int) -> bool:
    return killed not in workers and len(workers) == wanted


async def kill_a_pod(site: Site) -> None:
    """Master and workers; what runs pods starts it again."""
    pod = await _busiest(site)
    site.stack.kill_pod(pod)
    site.stack.start_pod(pod)
    await ready(site)


async def kill_a_master(site: Site) -> None:
    """Its workers must end by themselves: nobody would end them, and they would hold the port."""
    pod = await _busiest(site)
    workers = site.stack.worker_pids(pod)
    os.kill(site.stack.pod_pid(pod), signal.SIGKILL)
    await until(lambda: not any(map(_lives, workers)), "the workers have ended with their master", 15)
    site.stack.start_pod(pod)
    await ready(site)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def roll_out(site: Site) -> None:
    """As Kubernetes does with maxSurge 1 and maxUnavailable 0: a new pod is ready before an old one gets SIGTERM."""
    for old in tuple(site.running):
        new = site.spare
        site.stack.start_pod(new)
        await ready(site)
        site.running.append(new)
        site.running.remove(old)
        await asyncio.to_thread(site.stack.stop_pod, old)
        site.spare = old


async def reload_nginx(site: Site) -> None:
    """Old Nginx workers keep their connections, new ones take what is new."""
    before = set(site.stack.nginx_workers())
    site.stack.reload_nginx()
    await until(lambda: not before >= set(site.stack.nginx_workers()), "new Nginx workers")


async def freeze_a_worker(site: Site) -> None:
    worker = site.stack.worker_pids(await _busiest(site))[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        await asyncio.sleep(FROZEN)
    finally:
        os.kill(worker, signal.SIGCONT)


async def cut_the_way(site: Single) -> None:
    site.proxy.block()
    await asyncio.sleep(CUT)
    site.proxy.unblock()


async def delay_the_way(site: Single) -> None:
    site.proxy.delay = LATE
    await asyncio.sleep(CUT)
    site.proxy.delay = 0.0


async def halve_the_way(site: Single) -> None:
    """Requests go through, answers do not, no connection ends: only the canary can know. New ones are whole."""
    before = await _reconnects(site)
    site.proxy.halve()
    deadline = monotonic() + HALVED_AT_MOST
    while await _reconnects(site) < before + WORKERS:
        assert monotonic() < deadline, "its workers have not noticed"
        await asyncio.sleep(0.2)


async def _reconnects(site: Single) -> float:
    return await asyncio.to_thread(sample, site.stack, "carillon_broker_reconnects_total", REMOTE_POD)
