"""The upgrade: origin, admission, and the four ways in which credentials come."""

import pytest

from app.auth.permissions import Claims
from app.auth.tokens import sign
from app.broker.base import BrokerUnavailable
from app.testing import CommandFailed, ConnectionClosed, TestGateway, UpgradeRefused

SECRET = "a-secret-of-the-tests-that-is-long-enough"
SAME_ORIGIN = {"origin": "https://test"}  # the host that TestGateway's clients ask


def gateway(**settings: object) -> TestGateway:
    return TestGateway(token_hmac_secret=SECRET, token_leeway=0, **settings)


def token(node: TestGateway, ttl: float = 60) -> str:
    return sign(node.settings, "ann", ["*"], ["*"], ttl)


async def test_a_bearer_token_lets_in_without_a_word() -> None:
    async with gateway() as node:
        client = await node.open(headers={"authorization": f"Bearer {token(node)}"})
        await client.subscribe("chat:x")
        assert [session.claims.user for session in node.gateway.registry.by_id.values() if session.claims] == ["ann"]


async def test_the_room_of_the_path_is_subscribed() -> None:
    async with gateway() as node:
        client = await node.open("/ws/chat:path", headers={"authorization": f"Bearer {token(node)}"})
        assert (await client.event("ok"))["room"] == "chat:path"


async def test_a_cookie_counts_only_with_an_origin_that_is_allowed() -> None:
    async with gateway() as node:
        cookie = {"cookie": f"carillon_token={token(node)}"}
        client = await node.open(headers={**SAME_ORIGIN, **cookie})
        await client.subscribe("chat:x")
        without = await node.open(headers=cookie)
        with pytest.raises(CommandFailed) as refused:
            await without.subscribe("chat:x")
        assert refused.value.code == 101
        with pytest.raises(UpgradeRefused) as elsewhere:
            await node.open(headers={"origin": "https://evil.example", **cookie})
        assert elsewhere.value.status == 403


async def test_a_ticket_lets_in_once() -> None:
    async with gateway() as node:
        ticket = await node.gateway.tickets.issue(Claims("ann", None, ("*",), ()))
        client = await node.open(query=f"ticket={ticket}")
        await client.subscribe("chat:x")
        second = await node.open(query=f"ticket={ticket}")
        with pytest.raises(ConnectionClosed) as closed:
            await second.subscribe("chat:x")
        assert closed.value.code == 3500


@pytest.mark.parametrize(("ttl", "code"), [(-10, 3005), (None, 3500)])
async def test_bad_credentials_of_an_upgrade_end_the_session(ttl: float | None, code: int) -> None:
    """An expired token may be replaced: come back. A wrong one stays away."""
    async with gateway() as node:
        bearer = "nonsense" if ttl is None else token(node, ttl)
        client = await node.open(headers={"authorization": f"Bearer {bearer}"})
        with pytest.raises(ConnectionClosed) as closed:
            await client.subscribe("chat:x")
        assert closed.value.code == code


async def test_credentials_that_cannot_be_checked_now_are_no_reason_to_stay_away() -> None:
    async with gateway() as node:

        async def away(_: str) -> None:
            raise BrokerUnavailable("the broker is away")

        node.gateway.tickets.redeem = away  # type: ignore[assignment]
        client = await node.open(query="ticket=whatever")
        with pytest.raises(ConnectionClosed) as closed:
            await client.subscribe("chat:x")
        assert closed.value.code == 3004


async def test_a_node_that_drains_answers_503() -> None:
    """N4: before the handshake, with Retry-After."""
    async with gateway() as node:
        node.gateway.draining = True
        with pytest.raises(UpgradeRefused) as refused:
            await node.open()
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"] == "1"
        assert node.gateway.counters.upgrades_refused == {"draining": 1}


async def test_a_greedy_address_gets_429() -> None:
    async with gateway(max_address_connections=1) as node:
        await node.connect()
        with pytest.raises(UpgradeRefused) as refused:
            await node.open()
        assert refused.value.status == 429
        await node.open(address="192.0.2.9")
