"""One-time tickets: unguessable, short-lived, good once, and useless to who reads the broker."""

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.permissions import Claims
from app.auth.tickets import Tickets
from app.broker.base import BrokerUnavailable
from app.broker.memory import MemoryBroker
from app.settings import load

CLAIMS = Claims("u1", 1_800_000_060.0, ("chat:*",), ("chat:lobby",))


class Watched(MemoryBroker):
    """The real broker of one process, which remembers what was asked of it, and can be away."""

    def __init__(self) -> None:
        super().__init__(load())
        self.put_: list[tuple[str, bytes, float]] = []
        self.taken: list[str] = []
        self.away = False

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.put_.append((key, value, ttl))
        await super().put(key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        if self.away:
            raise BrokerUnavailable("away")
        self.taken.append(key)
        return await super().take(key)


@pytest.fixture
def broker() -> Watched:
    return Watched()


@pytest.fixture
def tickets(broker: Watched) -> Tickets:
    return Tickets(broker, ttl=60, now=lambda: 1_800_000_000.0)


@pytest.mark.parametrize("claims", [CLAIMS, Claims("u2"), Claims("ü", None, ("*",))])
async def test_a_ticket_stands_for_the_claims(tickets: Tickets, claims: Claims) -> None:
    assert await tickets.redeem(await tickets.issue(claims)) == claims


async def test_any_node_takes_it(broker: Watched, tickets: Tickets) -> None:
    other_node = Tickets(broker, ttl=60, now=lambda: 1_800_000_000.0)
    assert await other_node.redeem(await tickets.issue(CLAIMS)) == CLAIMS


async def test_it_is_good_once(tickets: Tickets) -> None:
    ticket = await tickets.issue(CLAIMS)
    answers = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(5)))
    assert sorted(answers, key=bool) == [None] * 4 + [CLAIMS]


async def test_it_is_kept_as_long_as_the_setting_says(broker: Watched, tickets: Tickets) -> None:
    await tickets.issue(CLAIMS)
    assert [ttl for _, _, ttl in broker.put_] == [60]


async def test_it_outlives_no_token(broker: Watched, tickets: Tickets) -> None:
    ticket = await tickets.issue(CLAIMS)
    later = Tickets(broker, ttl=60, now=lambda: 1_800_000_060.0)
    assert await later.redeem(ticket) is None


async def test_it_fits_into_a_url_and_cannot_be_guessed(tickets: Tickets) -> None:
    made = {await tickets.issue(CLAIMS) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", ticket) for ticket in made)  # 192 bits


async def test_the_broker_does_not_know_it(broker: Watched, tickets: Tickets) -> None:
    ticket = await tickets.issue(CLAIMS)
    assert ticket not in repr(broker.put_)


async def test_redeemed_rights_are_shared_like_those_of_tokens(tickets: Tickets) -> None:
    first, second = [await tickets.redeem(await tickets.issue(CLAIMS)) for _ in range(2)]
    assert first is not None
    assert second is not None
    assert first.rooms is second.rooms


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.text("aZ0_-", min_size=31, max_size=33))
async def test_what_is_no_ticket_never_reaches_the_broker(broker: Watched, text: str) -> None:
    broker.taken.clear()
    assert await Tickets(broker, ttl=60).redeem(text) is None
    assert bool(broker.taken) is bool(re.fullmatch(r"[A-Za-z0-9_-]{32}", text))


async def test_an_absent_broker_is_not_a_wrong_ticket(broker: Watched, tickets: Tickets) -> None:
    ticket = await tickets.issue(CLAIMS)
    broker.away = True
    with pytest.raises(BrokerUnavailable):
        await tickets.redeem(ticket)
    with pytest.raises(BrokerUnavailable):
        await tickets.issue(CLAIMS)
