"""What a node says of itself each second."""

from prometheus_client import REGISTRY

from app.server.pod import PodState
from app.server.pulse import Pulse
from tests.support.in_process import Node


async def test_it_says_how_many_connections_there_are_and_may_be() -> None:
    async with Node(max_connections=7) as node:
        await node.connect("ann")
        slot = PodState(1).slot(0)
        slot.claim()
        Pulse(node.gateway, slot).beat()
    assert REGISTRY.get_sample_value("carillon_connections") == 1
    assert REGISTRY.get_sample_value("carillon_connection_capacity") == 7
