"""Which tokens are refused, how long, and that no node forgets one."""

import pytest

from app.auth import revocations
from app.auth.permissions import Claims
from app.auth.revocations import Revocations
from app.broker.memory import MemoryBroker
from app.codes import CommandError
from app.settings import load
from tests.support.clock import Clock

EVER = 10.0**11


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(load())


def token(user: str = "ann", jti: str | None = None, issued_at: float | None = None) -> Claims:
    return Claims(user, jti=jti, issued_at=issued_at)


async def revoked_user(broker: MemoryBroker, user: str, before: float, until: float = EVER) -> Revocations:
    known = Revocations(broker, 0, now=Clock())
    known.note(*await known.revoke_user(user, before, until))
    return known


async def test_one_token_of_a_user_is_refused(broker: MemoryBroker) -> None:
    known = Revocations(broker, 0)
    known.note(*await known.revoke_token("t1", EVER))
    assert known.refuse(token(jti="t1"))
    assert not known.refuse(token(jti="t2"))
    assert not known.refuse(token())


async def test_the_older_tokens_of_a_user_are_refused_and_those_that_do_not_say(broker: MemoryBroker) -> None:
    known = await revoked_user(broker, "ann", before=500)
    assert [known.refuse(token(issued_at=moment)) for moment in (499.9, 500, 501)] == [True, False, False]
    assert known.refuse(token())
    assert not known.refuse(token("bob", issued_at=1))


async def test_of_two_moments_the_later_one_counts(broker: MemoryBroker) -> None:
    known = await revoked_user(broker, "ann", before=500)
    known.note(*await known.revoke_user("ann", 300, EVER))
    assert known.refuse(token(issued_at=499))


async def test_a_revocation_ends_with_its_tokens(broker: MemoryBroker) -> None:
    """Which are accepted a little longer than they say (`token_leeway`)."""
    clock = Clock()
    known = Revocations(broker, 5, now=clock)
    known.note(*await known.revoke_token("t1", 1100))
    known.note(*await known.revoke_user("ann", 500, 1100))
    clock.now = 1104
    known.prune()
    assert len(known) == 2
    clock.now = 1106
    known.prune()
    assert len(known) == 0
    known.note(*await known.revoke_token("t1", 1100))
    assert len(known) == 0, "it is over already"


async def test_a_node_that_starts_reads_what_is_revoked(broker: MemoryBroker) -> None:
    await Revocations(broker, 0).revoke_token("t1", EVER)
    await Revocations(broker, 0).revoke_user("bob:\n{x}é", 500, EVER)
    started = Revocations(broker, 0)
    assert not started.refuse(token(jti="t1"))
    await started.load()
    assert started.refuse(token(jti="t1"))
    assert started.refuse(token("bob:\n{x}é", issued_at=1))


async def test_what_the_broker_has_lost_is_put_back(broker: MemoryBroker) -> None:
    """A restart without persistence, a failover: a token must not become good again."""
    known = await revoked_user(broker, "ann", before=500)
    known.note(*await known.revoke_token("t1", EVER))
    emptied = MemoryBroker(load())
    known._broker = emptied
    await known.load()
    assert known.refuse(token(jti="t1"))
    another = Revocations(emptied, 0)
    await another.load()
    assert another.refuse(token(jti="t1"))
    assert another.refuse(token(issued_at=1))


async def test_too_many_are_refused_and_none_is_dropped_for_another(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "MOST", 2)
    known = Revocations(broker, 0)
    for jti in ("t1", "t2", "t1"):
        known.note(*await known.revoke_token(jti, EVER))
    with pytest.raises(CommandError, match="106"):
        await known.revoke_token("t3", EVER)
    assert [known.refuse(token(jti=jti)) for jti in ("t1", "t2", "t3")] == [True, True, False]


@pytest.mark.parametrize("entry", [b"", b"2[]", b"1nonsense", b'1["other",1]', b"1\xff"])
def test_what_it_cannot_read_is_left_to_others(broker: MemoryBroker, entry: bytes) -> None:
    """P6: two versions share a broker during a rollout."""
    known = Revocations(broker, 0)
    known.note(entry, EVER)
    assert len(known) == 0
