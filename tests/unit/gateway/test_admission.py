"""Who is refused before the handshake, with which status (N4), and that each limit is counted where it acts."""

import pytest

from app.auth.permissions import Claims
from app.codes import CONNECTION_LIMIT, Disconnect
from app.gateway.admission import Admission, Refusal
from app.gateway.registry import Registry
from app.settings import load
from tests.support.in_process import Node


@pytest.mark.parametrize("reason", ["draining", "broker_unreachable", "deaf"])
def test_a_node_that_is_not_ready_sends_to_the_next_one(reason: str) -> None:
    assert Admission(load(), Registry()).refusal("192.0.2.1", reason, 0) == Refusal(503, reason)


async def test_a_full_node_sends_to_the_next_one_a_greedy_address_has_to_wait() -> None:
    async with Node(max_connections=3, max_address_connections=2) as node:
        admission = node.gateway.admission
        node.open()
        assert admission.refusal("192.0.2.1", None, 0) is None
        peer = node.open()
        refused = admission.refusal("192.0.2.1", None, 0)
        assert refused is not None
        assert (refused.status, refused.reason) == (429, "max_address_connections")
        assert admission.refusal("192.0.2.2", None, 0) is None
        node.open()
        assert admission.refusal("192.0.2.2", None, 0) == Refusal(503, "max_connections")
        peer.lose()
        assert admission.refusal("192.0.2.2", None, 0) is None


def test_new_connections_have_a_rate() -> None:
    admission = Admission(load(connect_rate=10, connect_burst=2), Registry())
    assert [admission.refusal("a", None, 5.0) for _ in range(3)] == [None, None, Refusal(503, "connect_rate")]
    assert admission.refusal("a", None, 5.2) is None


async def test_a_user_has_so_many_connections() -> None:
    async with Node(max_user_connections=2) as node:
        peers = [node.open() for _ in range(3)]
        for peer in peers[:2]:
            await node.gateway.admit(peer.session, Claims("ann"))
        with pytest.raises(Disconnect) as refused:
            await node.gateway.admit(peers[2].session, Claims("ann"))
        assert refused.value.close is CONNECTION_LIMIT
        assert node.gateway.counters.limit_hits["max_user_connections"] == 1
        await node.gateway.admit(peers[2].session, Claims("bob"))
