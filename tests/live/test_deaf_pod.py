"""A pod that alone hears nothing any more drains itself (N1)."""

from pathlib import Path

from tests.support.client import Client
from tests.support.hosted import Pod
from tests.support.proxy import proxy
from tests.support.valkey import server
from tests.support.waiting import until

QUICK = {
    "CARILLON_BROKER_ECHO_INTERVAL": "0.1",
    "CARILLON_BROKER_DEAF_AFTER": "0.5",
    "CARILLON_BROKER_DRAIN_AFTER": "1",
    "CARILLON_DRAIN_TIMEOUT": "2",
    "CARILLON_INTERNAL_PORT": "0",
}


async def test_it_says_goodbye_to_its_clients_and_ends_while_the_other_one_stays(tmp_path: Path) -> None:
    with server(tmp_path) as valkey:
        async with proxy(valkey.port) as between:
            urls = [f"redis://127.0.0.1:{port}" for port in (between.port, valkey.port)]
            deaf, hears = [Pod(app="app.main:create_app()", CARILLON_REDIS_URL=url, **QUICK) for url in urls]
            with deaf, hears:
                for pod in (deaf, hears):
                    await until(lambda pod=pod: answers(pod) == 200, "ready", timeout=30)  # type: ignore[misc]
                async with Client(f"ws://127.0.0.1:{deaf.port}") as ann, Client(f"ws://127.0.0.1:{hears.port}") as bob:
                    between.deafen()
                    assert await ann.closed(timeout=20) == 3001
                    await until(lambda: deaf.process.poll() is not None, "its pod ends")
                    assert deaf.process.returncode == 0
                    assert bob.close_code is None
                    assert answers(hears) == 200


def answers(pod: Pod) -> int:
    try:
        return pod.get("/readyz")[0]
    except OSError:
        return 0
