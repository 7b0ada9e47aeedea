"""The pods that the chart and the overlays make, run in Docker: two edges, two gateways, as Kubernetes would run them.

Their environment, user, rights, files, probes, preStop and grace are the specifications' own; scheduling, Services and
policies are not here. DNS and one network stand in for the headless Service."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.exceptions import InvalidHandshake

from tests.deploy.conftest import EDGE, GATEWAY
from tests.deploy.engine import Engine
from tests.deploy.kubelet import NAMESPACE, RunningPod
from tests.support import manifests as rendering
from tests.support.client import Client
from tests.support.manifests import Manifests
from tests.support.stack import API_KEY, SECRET
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

RENDERED = ("chart minimal", "k8s production")
IMAGES = {"gateway": GATEWAY, "edge": EDGE}
VALKEY = "valkey/valkey:9.1"


@dataclass
class Fleet:
    """What runs of one rendering."""

    gateways: list[RunningPod] = field(default_factory=list)
    edges: list[RunningPod] = field(default_factory=list)

    def url(self, edge: int = 0) -> str:
        pod = self.edges[edge]
        return f"ws://{pod.address}:{pod.port('http')}"


@pytest.fixture(scope="module", params=RENDERED)
def fleet(request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if not engine.is_own:
        pytest.skip("a kubelet reaches its containers by their addresses: only with an engine of the tests' own")
    folder = tmp_path_factory.mktemp("pods")
    folder.chmod(0o755)
    network = f"carillon-pods-{os.getpid()}-{RENDERED.index(request.param)}"
    manifests = with_secret(rendering.rendered(request.param), redis_url="redis://valkey:6379")
    with ExitStack() as opened:
        engine.run("network", "create", network)
        opened.callback(engine.run, "network", "rm", network)
        valkey = f"{network}-valkey"
        command = ("valkey-server", "--protected-mode no", '--save ""', "--dir /tmp")
        engine.run(
            "run", "--detach", f"--name={valkey}", f"--network={network}", "--network-alias=valkey", VALKEY, *command
        )
        opened.callback(engine.run, "rm", "--force", "--volumes", valkey)
        made = Fleet()
        for component, pods in (("gateway", made.gateways), ("edge", made.edges)):
            for number in (1, 2):
                pod = run(engine, manifests, component, folder, f"{network}-{component}-{number}", network)
                opened.callback(pod.remove)
                pods.append(pod)
        for pod in (*made.gateways, *made.edges):
            pod.started()
        yield made


def with_secret(manifests: Manifests, redis_url: str) -> Manifests:
    """What the operator makes by hand."""
    secret = {
        "kind": "Secret",
        "metadata": {"name": "carillon"},
        "stringData": {"token-hmac-secret": SECRET, "api-keys": API_KEY, "redis-url": redis_url},
    }
    return Manifests(manifests.name, (*manifests.objects, secret))


def run(engine: Engine, manifests: Manifests, component: str, folder: Path, name: str, network: str) -> RunningPod:
    (pod,) = (pod for pod in manifests.pods() if pod.component == component)
    made = RunningPod(engine, manifests, pod, IMAGES[component], folder, name)
    headless = f"carillon-gateway-headless.{NAMESPACE}.svc.cluster.local"
    made.start(network, (headless,) if component == "gateway" else ())
    return made


async def clients_through(fleet: Fleet, edge: int, count: int, token: Callable[[str], str]) -> list[Client]:
    clients = [Client(fleet.url(edge), token=token(f"user-{edge}-{number}")) for number in range(count)]
    for client in clients:
        await client.open()
        await client.subscribe("chat:pods")
    return clients


def token(user: str) -> str:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    claims = {"sub": user, "rooms": ["*"], "publish": ["*"], "exp": int(time.time()) + 3600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def on(pod: RunningPod, clients: list[Client]) -> list[Client]:
    return [client for client in clients if client.welcome["node"].startswith(pod.name)]


async def come_back(client: Client, within: float = 15) -> None:
    """As an SDK does. Until the edge has asked the DNS anew, it may lead to the address that is gone."""
    async with asyncio.timeout(within):
        while True:
            with suppress(InvalidHandshake, OSError):
                await client.open()
                return


async def test_they_serve_say_goodbye_and_end_within_their_grace(fleet: Fleet) -> None:
    """In one go, as each pod ends only once: first an edge, then a gateway."""
    clients = [await clients_through(fleet, edge, 12, token) for edge in (0, 1)]
    everybody = [*clients[0], *clients[1]]
    assert all(on(gateway, everybody) for gateway in fleet.gateways), "both gateways have clients"
    await everybody[0].publish("chat:pods", "hello")
    for client in everybody[1:]:
        assert await client.heard("chat:pods", 1) == ["hello"]

    ended = await asyncio.to_thread(fleet.edges[0].terminate)
    print(f"the edge has ended after {ended.took:.1f} of {ended.grace:.0f} s")
    assert (ended.code, ended.took < ended.grace) == (0, True), fleet.edges[0].log()
    assert {await client.closed() for client in clients[0]} == {3001}, "with goodbyes"
    assert [client.close_code for client in clients[1]] == [None] * 12, "nobody else"

    leaving = on(fleet.gateways[0], clients[1])
    ended = await asyncio.to_thread(fleet.gateways[0].terminate)
    print(f"the gateway has ended after {ended.took:.1f} of {ended.grace:.0f} s")
    assert (ended.code, ended.took < ended.grace) == (0, True), fleet.gateways[0].log()
    assert {await client.closed() for client in leaving} == {3001}
    for client in leaving:
        await come_back(client)
        assert client.welcome["node"].startswith(fleet.gateways[1].name)
    for client in clients[1]:
        await client.close()


def test_liveness_does_not_ask_redis(fleet: Fleet, engine: Engine) -> None:
    survivor = fleet.gateways[1]
    valkey = survivor.name.rsplit("-", 2)[0] + "-valkey"
    engine.run("stop", "--time=1", valkey)
    readiness, liveness = survivor.probe("readinessProbe"), survivor.probe("livenessProbe")
    wait_until(lambda: not readiness.passes(survivor.address), "it is unready", timeout=30)
    assert liveness.passes(survivor.address)
    engine.run("start", valkey)
    wait_until(lambda: readiness.passes(survivor.address), "it is ready again", timeout=30)
