"""N6: how many closes are due, by a simulated clock."""

import random
from collections.abc import Iterable, Iterator

import pytest

from app.gateway.pace import LONGEST_STEP, Pace

TICK = 0.02


def ticks(length: float, tick: float = TICK) -> Iterator[float]:
    """Moments from 0 on; the last one is `length` or later."""
    count = 0
    while count * tick < length + tick:
        yield count * tick
        count += 1


def run(pace: Pace, sessions: int, moments: Iterable[float]) -> list[float]:
    """When each of so many was due."""
    closes: list[float] = []
    for now in moments:
        closes += [now] * pace.due(sessions - len(closes), now)
    return closes


def per_window(closes: list[float], length: float, windows: int) -> list[int]:
    width = length / windows
    return [sum(window * width <= at < (window + 1) * width for at in closes) for window in range(windows)]


@pytest.mark.parametrize(("sessions", "length"), [(300, 3), (10_000, 8), (150, 1.5)])
def test_closes_are_even_to_the_end(sessions: int, length: float) -> None:
    closes = run(Pace(0, length, 0), sessions, ticks(length))
    assert len(closes) == sessions
    assert closes[-1] <= length + TICK
    planned = sessions / 6
    assert all(abs(count - planned) <= 0.05 * planned + 2 for count in per_window(closes, length, 6))


def test_no_tick_has_twice_its_share() -> None:
    closes = run(Pace(0, 8, 0), 10_000, ticks(8))
    assert max(closes.count(now) for now in set(closes)) < 2 * 10_000 * TICK / 8


@pytest.mark.parametrize("seed", range(5))
def test_ticks_that_come_late_do_not_matter(seed: int) -> None:
    late = random.Random(seed)
    moments = [now + late.random() * TICK for now in ticks(3, 2 * TICK)]
    closes = run(Pace(0, 3, 0), 300, moments)
    assert len(closes) == 300
    assert all(40 <= count <= 60 for count in per_window(closes, 3, 6))


def test_after_a_stall_nothing_bursts_and_the_rate_rises_to_what_the_time_left_needs() -> None:
    moments = [now for now in ticks(4) if not 1 <= now < 2]
    closes = run(Pace(0, 4, 0), 400, moments)
    before, stalled, *after = per_window(closes, 4, 4)
    assert before == pytest.approx(100, abs=3)
    assert max(closes.count(now) for now in set(closes)) <= LONGEST_STEP * 150 + 1
    assert stalled == 0
    assert after == [pytest.approx(150, abs=8)] * 2
    assert len(closes) == 400


def test_few_go_at_the_slowest_pace_and_are_done_early() -> None:
    closes = run(Pace(0, 10, 100), 40, ticks(10))
    assert len(closes) == 40
    assert closes[-1] == pytest.approx(0.4, abs=TICK)


def test_many_go_faster_than_the_slowest_pace() -> None:
    closes = run(Pace(0, 4, 10), 400, ticks(4))
    assert per_window(closes, 4, 4) == [pytest.approx(100, abs=3)] * 4


def test_without_a_slowest_pace_one_alone_goes_at_the_end() -> None:
    assert run(Pace(0, 2, 0), 1, ticks(2)) == [pytest.approx(2, abs=2 * TICK)]


@pytest.mark.parametrize("now", [5, 7])
def test_at_the_end_all_are_due(now: float) -> None:
    assert Pace(5, 5, 0).due(1000, now) == 1000


def test_of_none_none_is_due() -> None:
    assert run(Pace(0, 1, 100), 0, ticks(1)) == []


def test_who_leaves_by_himself_slows_it_down() -> None:
    """What remains is divided by the time that remains."""
    pace = Pace(0, 2, 0)
    for now in ticks(1):
        pace.due(100, now)
    assert pace.due(10, 1.06) <= 1
