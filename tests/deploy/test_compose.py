"""compose.yaml as a newcomer starts it: healthy in time; all gateways in use; scaled, rolled, drained and killed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from local.ports import HOST
from tests.chaos.checker import check, summary
from tests.chaos.load import Load
from tests.chaos.records import Closed
from tests.deploy.compose import DRAIN, GRACE, Site
from tests.deploy.conftest import EDGE, GATEWAY
from tests.deploy.engine import Engine
from tests.support.client import Client, close_all
from tests.support.stack import API_KEY
from tests.support.waiting import until, wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

IMAGES = {"GATEWAY_IMAGE": GATEWAY, "EDGE_IMAGE": EDGE}

HEALTHY_WITHIN = 30.0
CLIENTS = 60
#: Publications before and after what happens.
SOME = 100

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def site(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two gateways; tests leave as many."""
    made = Site(engine, tmp_path_factory.mktemp("compose"), IMAGES)
    try:
        began = time.monotonic()
        made.up()
        took = time.monotonic() - began
        log.info("all containers are healthy after %.1f s", took)
        assert took < HEALTHY_WITHIN
        made.reachable(made.containers("gateway"))
        yield made
    finally:
        made.down()


def test_without_secrets_it_says_what_to_do(engine: Engine) -> None:
    done = engine.try_run("compose", "--env-file", "/dev/null", "up", env={"CARILLON_SECRETS": ""})
    assert done.returncode != 0
    assert "run `make secrets` once" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_containers_have_no_more_rights_than_they_need(site: Site) -> None:
    for service, user in (("edge", "101:101"), ("gateway", "10001:10001"), ("valkey", "999:999")):
        for container in site.containers(service):
            found = site.engine.inspect(container)
            host = found["HostConfig"]
            assert found["Config"]["User"] == user
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert not host["CapAdd"]
            assert not host["Privileged"]
            assert host["SecurityOpt"] == ["no-new-privileges:true"]
            assert API_KEY not in str(found), "secrets come as files"


def test_only_the_edge_is_published_and_only_here(site: Site) -> None:
    published = {
        (service, binding["HostIp"])
        for service in ("edge", "gateway", "valkey")
        for container in site.containers(service)
        for bindings in site.engine.inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {("edge", HOST)}


async def test_a_publication_reaches_clients_of_both_gateways(site: Site) -> None:
    clients = [Client(site.ws_url, token=site.token(f"user-{number}")) for number in range(12)]
    for client in clients:
        await client.open()
        await client.subscribe("chat:compose")
    assert len({client.welcome["node"] for client in clients}) == 2
    await asyncio.to_thread(site.publish, "chat:compose", "from the backend")
    await clients[0].publish("chat:compose", "from a client")
    for client in clients[1:]:
        assert await client.heard("chat:compose", 2) == ["from the backend", "from a client"]
    await close_all(clients)


def test_what_is_internal_stays_inside(site: Site) -> None:
    for path in ("/metrics", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert httpx.get(site.url + path, trust_env=False).status_code == 404, path


def test_a_third_gateway_is_found_while_the_edge_runs(site: Site) -> None:
    edge, before = site.containers("edge"), site.containers("gateway")
    site.up("--no-recreate", "--scale", "gateway=3")
    (third,) = set(site.containers("gateway")) - set(before)
    site.reachable({third})
    assert site.containers("edge") == edge
    site.up("--no-recreate", "--scale", "gateway=2")
    assert len(site.containers("gateway")) == 2


def test_prometheus_finds_all_gateways_and_the_edge_knows_the_rules_and_whom_to_tell(site: Site) -> None:
    """Without Grafana, which only its own registry has."""

    def ask(path: str) -> Any:
        answer = httpx.get(f"http://{HOST}:{site.prometheus}/api/v1/{path}", timeout=10, trust_env=False)
        return answer.json()["data"]

    def up() -> list[str]:
        with suppress(httpx.TransportError):
            return sorted(sample["metric"]["job"] for sample in ask("query?query=up==1")["result"])
        return []

    site.up("--no-recreate", "prometheus", "alertmanager", "exporter")
    wait_until(lambda: up() == ["carillon-edge", "carillon-gateway", "carillon-gateway"], "all are scraped", timeout=60)
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 10
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, "none of them fails"
    assert [one["url"] for one in ask("alertmanagers")["activeAlertmanagers"]] == [
        "http://alertmanager:9093/api/v2/alerts"
    ]
    site.compose("rm", "--stop", "--force", "--volumes", "prometheus", "alertmanager", "exporter")


@asynccontextmanager
async def nothing_lost(site: Site) -> AsyncIterator[Load]:
    """Clients and publishers are busy meanwhile; afterwards all are back and have everything, in order, once."""
    edge = (HOST, site.port)
    load = Load(edge, site.token, lambda: [edge], API_KEY, clients=CLIENTS)
    try:
        await load.start()
        load.turn_page()
        load.publish()
        await until(lambda: load.accepted() >= SOME, "the load runs", timeout=60)
        yield load
        await until(load.all_are_open, "all clients are back", timeout=60)
        enough = load.accepted() + SOME
        await until(lambda: load.accepted() >= enough, "the load runs again", timeout=60)
        tops = await load.settle()
        verdict = check(load.publications, {client.name: client.journal for client in load.clients}, tops)
        assert not verdict.findings, summary(verdict.findings)
        log.info("%d publications, %d closes, nothing lost", load.accepted(), len(closes(load)))
    finally:
        await load.stop()


def closes(load: Load) -> list[int]:
    return [event.code for client in load.clients for event in client.journal if isinstance(event, Closed)]


async def test_a_roll_sends_every_client_away_with_a_goodbye_and_loses_nothing(site: Site) -> None:
    async with nothing_lost(site) as load:
        for gateway in site.containers("gateway"):
            code, took = await asyncio.to_thread(site.stop, gateway)
            log.info("a gateway has drained in %.1f s", took)
            assert code == 0
            assert took < GRACE
            site.remove(gateway)
            others = set(site.containers("gateway"))
            await asyncio.to_thread(site.up, "--no-recreate")
            await asyncio.to_thread(site.reachable, set(site.containers("gateway")) - others)
    codes = closes(load)
    assert set(codes) == {3001}
    assert CLIENTS <= len(codes) <= 2 * CLIENTS


async def test_a_gateway_that_is_killed_loses_nothing(site: Site) -> None:
    async with nothing_lost(site) as load:
        gateway = site.containers("gateway")[0]
        site.engine.run("kill", "--signal=KILL", gateway)
        await until(load.all_are_open, "all clients are with the other one", timeout=60)
        site.remove(gateway)
        await asyncio.to_thread(site.up, "--no-recreate")
    assert set(closes(load)) == {1006}


async def test_without_valkey_gateways_live_on_and_come_back(site: Site) -> None:
    """N2, N4: nobody is closed, new clients get 503, and nothing restarts."""
    gateways = site.containers("gateway")
    async with Client(site.ws_url, token=site.token("ann")) as ann:
        await asyncio.to_thread(site.compose, "stop", "valkey")
        await until(lambda: refused(site) == 503, "new clients are refused", 30)
        await asyncio.to_thread(site.compose, "start", "valkey")
        await until(lambda: refused(site) == 0, "new clients are served", 30)
        assert ann.close_code is None
    assert site.containers("gateway") == gateways
    assert [found["RestartCount"] for found in site.gateways()] == [0, 0]


def refused(site: Site) -> int:
    """The status with which a new client is; 0 where it is not."""
    from websockets.sync.client import connect

    try:
        with connect(f"{site.ws_url}/ws", proxy=None):
            return 0
    except InvalidStatus as refusal:
        return refusal.response.status_code


async def test_an_edge_that_compose_stops_says_goodbye(site: Site) -> None:
    clients = [Client(site.ws_url, token=site.token(f"user-{number}")) for number in range(20)]
    for client in clients:
        await client.open()
    (edge,) = site.containers("edge")
    began = time.monotonic()
    await asyncio.to_thread(site.compose, "stop", "edge")
    took = time.monotonic() - began
    log.info("the edge has drained in %.1f s", took)
    assert {await client.closed() for client in clients} == {3001}
    ended = site.engine.inspect(edge)
    assert (ended["State"]["ExitCode"], ended["RestartCount"]) == (0, 0)
    assert took < DRAIN + 5
    await asyncio.to_thread(site.up, "--no-recreate")
