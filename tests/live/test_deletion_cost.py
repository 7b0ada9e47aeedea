"""What the deletion-cost program reads of a real pod is how many clients it has."""

from contextlib import ExitStack
from pathlib import Path

from app.deletion_cost.kube_api import KubeApi
from app.deletion_cost.writer import Writer
from tests.support.kube_api import kube_api
from tests.support.raw_websocket import RawWebSocket
from tests.support.scrape import sample
from tests.support.stack import StackFactory
from tests.support.waiting import wait_until

CLIENTS = 25


async def test_a_pods_clients_are_its_cost(make_stack: StackFactory, tmp_path: Path) -> None:
    stack = make_stack(pods=1, workers=2, nginx=False)
    with kube_api(tmp_path / "api", pods=1) as server, ExitStack() as opened:
        server.pods[0].port = stack.pods[0].internal_port
        for _ in range(CLIENTS):
            opened.enter_context(RawWebSocket(stack.port)).upgrade()
        wait_until(lambda: sample(stack, "carillon_connections") == CLIENTS, "both workers have told their clients")
        await Writer(KubeApi.in_pod(server.environ, server.account), "a=b", interval=30, rate=5).look()
        assert server.costs() == {"pod-1": str(CLIENTS)}
