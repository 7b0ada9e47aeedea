"""Waiting longer each time, but never longer than allowed, and never all at once."""

from app.broker.backoff import FIRST, backoff


def test_it_grows_to_the_longest() -> None:
    ceilings = [max(backoff(attempt, 2) for _ in range(300)) for attempt in (1, 2, 4, 10, 10_000)]
    assert FIRST < ceilings[0] <= 2 * FIRST
    assert ceilings == sorted(ceilings) or ceilings[-1] > 1.8
    assert all(ceiling <= 2 for ceiling in ceilings)


def test_it_is_spread_from_nothing_on() -> None:
    waits = [backoff(10, 2) for _ in range(300)]
    assert min(waits) < 0.2
    assert max(waits) > 1.8
