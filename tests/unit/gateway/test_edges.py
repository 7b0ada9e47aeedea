"""An edge goes away: its sessions are told, at a pace, and nobody else's (live: tests/live/test_nginx_drain.py)."""

from itertools import count

from app.gateway.edges import REMEMBERED, Edges
from app.gateway.registry import Registry
from tests.support.in_process import Node, Peer
from tests.support.waiting import until

EDGE = "edge-1-0123456789abcdef"
OTHER = "edge-2-0123456789abcdef"


async def through(node: Node, edge: str) -> Peer:
    peer = await node.connect()
    peer.session.edge = edge
    return peer


def told(peers: list[Peer]) -> int:
    return sum(len(peer.of_type("goodbye")) for peer in peers)


async def test_the_sessions_of_the_edge_are_told_once_to_come_back_and_no_others() -> None:
    async with Node() as node:
        going = [await through(node, EDGE) for _ in range(20)]
        staying = [await through(node, edge) for edge in (OTHER, "", OTHER)]
        node.gateway.edges.drain(EDGE, 5)
        node.gateway.edges.drain(EDGE, 5)
        await until(lambda: told(going) == 20, "all are told")
        assert {peer.connection.closed for peer in going} == {(3001, "shutdown")}
        await node.settled()
        assert (told(going), told(staying)) == (20, 0)


async def test_they_go_evenly() -> None:
    at: list[float] = []
    async with Node(drain_rate=0) as node:
        for _ in range(40):
            peer = await through(node, EDGE)
            peer.connection.close = lambda code, reason: at.append(node.gateway.now())  # type: ignore[method-assign]
        began = node.gateway.now()
        node.gateway.edges.drain(EDGE, 1.2)
        await until(lambda: len(at) == 40, "all are told")
    assert at[-1] - began > 0.8, "the last quarter is for what is unsent (O3)"
    assert len({round(moment, 2) for moment in at}) > 10


async def test_who_came_through_it_meanwhile_is_told_too() -> None:
    """Its handshake was under way."""
    async with Node() as node:
        first = await through(node, EDGE)
        node.gateway.edges.drain(EDGE, 10)
        await until(lambda: told([first]), "the first is told")
        late = await through(node, EDGE)
        await until(lambda: told([late]), "the second too")


async def test_all_are_told_where_the_time_is_over_at_the_first_look() -> None:
    async with Node() as node:
        going = [await through(node, EDGE) for _ in range(20)]
        node.gateway.edges.drain(EDGE, 1e-9)
        await until(lambda: told(going) == 20, "all are told")


async def test_when_the_time_is_over_it_can_be_asked_again() -> None:
    async with Node() as node:
        first = await through(node, EDGE)
        node.gateway.edges.drain(EDGE, 0.1)
        await until(lambda: told([first]), "the first is told")
        await until(lambda: not node.gateway.edges._going, "its time is over")
        late = await through(node, EDGE)
        node.gateway.edges.drain(EDGE, 1)
        await until(lambda: told([late]), "the second too")


class TestNodesAmongThemselves:
    """Each tells all the others, once: an edge asks every pod, again and again."""

    def edges(self) -> tuple[Edges, list[str]]:
        """Of a node whose clock is a second later each time."""
        passed_on: list[str] = []
        seconds = count(1.0)
        return Edges(
            Registry(),
            lambda _: None,
            tell=lambda edge, _: passed_on.append(edge),
            slowest=10,
            clock=lambda: next(seconds),
        ), passed_on

    def test_what_was_asked_is_passed_on_once(self) -> None:
        edges, passed_on = self.edges()
        for _ in range(3):
            edges.drain(EDGE, 5)
        assert passed_on == [EDGE]

    def test_what_was_heard_from_another_is_not(self) -> None:
        edges, passed_on = self.edges()
        edges.hear(EDGE, 5)
        edges.drain(EDGE, 5)
        assert passed_on == []

    def test_names_that_nobody_has_take_a_bounded_place(self) -> None:
        edges, _ = self.edges()
        for number in range(REMEMBERED + 50):
            edges.drain(f"nobody-{number:020}", 5)
        assert (len(edges._told), len(edges._going)) == (REMEMBERED, 0)

    async def test_a_message_on_the_control_channel_is_carried_out(self) -> None:
        async with Node() as node:
            peer = await through(node, EDGE)
            node.gateway.control(node.gateway._control.drain_edge(EDGE, 5))
            await until(lambda: told([peer]), "it is told")
