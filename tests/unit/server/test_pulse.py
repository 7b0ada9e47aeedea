"""What a node says of itself each second."""

from prometheus_client import REGISTRY

from app.server.pod import STALLED_AFTER, PodState, State
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


async def test_ready_is_the_pod_and_not_its_best_worker() -> None:
    """A worker that never comes up, or hangs, cannot say so itself: nobody would hear that half of a pod is gone."""
    now = 100.0
    pod = PodState(2, lambda: now)
    mine, other = pod.slot(0), pod.slot(1)
    mine.claim()
    async with Node() as node:
        pulse = Pulse(node.gateway, mine)
        pulse.beat()
        assert ready() == 0, "the other worker is missing"
        other.claim()
        pulse.beat()
        assert ready() == 0, "it starts"
        other.beat(State.READY)
        pulse.beat()
        assert ready() == 1
        now += STALLED_AFTER + 1
        pulse.beat()
        assert ready() == 0, "it hangs"


def ready() -> float | None:
    return REGISTRY.get_sample_value("carillon_ready")
