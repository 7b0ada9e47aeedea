"""The wheel: never early, at most one tick late, one entry per item."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.timers import TICK, TimerWheel


class Item:
    def __init__(self, *again: float) -> None:
        self.slot = -1
        self.fired: list[float] = []
        self.again = list(again)

    def on_timer(self, now: float) -> float | None:
        self.fired.append(now)
        return self.again.pop(0) if self.again else None


def turn_until(wheel: TimerWheel, end: float, step: float = TICK) -> None:
    now = 0.0
    while now < end:
        now += step
        wheel.turn(now)


@given(st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=50))
def test_each_fires_once_and_in_time(deadlines: list[float]) -> None:
    wheel = TimerWheel()
    items = [Item() for _ in deadlines]
    for item, at in zip(items, deadlines, strict=True):
        wheel.set(item, at)
    turn_until(wheel, 31)
    for item, at in zip(items, deadlines, strict=True):
        assert len(item.fired) == 1
        assert at <= item.fired[0] <= at + 2 * TICK + 1e-6


@pytest.mark.parametrize("at", [float("inf"), 1.7e308])
def test_what_is_too_far_away_never_comes(at: float) -> None:
    wheel, item = TimerWheel(), Item()
    wheel.set(item, 1)
    wheel.set(item, at)
    turn_until(wheel, 4)
    assert not item.fired


def test_setting_anew_moves() -> None:
    wheel, item = TimerWheel(), Item()
    wheel.set(item, 1)
    wheel.set(item, 5)
    turn_until(wheel, 4)
    assert not item.fired
    turn_until(wheel, 6)
    assert len(item.fired) == 1


def test_what_was_removed_or_never_comes_does_not_fire() -> None:
    wheel, removed, never = TimerWheel(), Item(), Item()
    wheel.set(removed, 1)
    wheel.remove(removed)
    wheel.remove(removed)
    wheel.set(never, float("inf"))
    turn_until(wheel, 10)
    assert not removed.fired
    assert not never.fired


def test_an_item_says_when_it_comes_again() -> None:
    wheel, item = TimerWheel(), Item(2, 3)
    wheel.set(item, 1)
    turn_until(wheel, 10)
    assert [round(at) for at in item.fired] == [1, 2, 3]


def test_a_loop_that_was_held_up_fires_what_it_missed() -> None:
    wheel, item = TimerWheel(), Item()
    wheel.set(item, 1)
    wheel.turn(60)
    assert item.fired == [60]
    late = Item()
    wheel.set(late, 1)  # a deadline that has passed
    wheel.turn(60 + 2 * TICK)
    assert len(late.fired) == 1
