"""The rate limit: a burst at once, then as many as the rate allows."""

from hypothesis import given
from hypothesis import strategies as st

from app.gateway.rates import Rate


def admitted(rate: Rate, times: list[float]) -> list[bool]:
    state, found = 0.0, []
    for now in times:
        after = rate.next_state(state, now)
        found.append(after is not None)
        state = state if after is None else after
    return found


def test_a_burst_passes_and_then_one_per_interval() -> None:
    rate = Rate(10, 3)
    assert admitted(rate, [100.0] * 5) == [True, True, True, False, False]
    assert admitted(rate, [100.0] * 3 + [100.05, 100.11, 100.12]) == [True] * 3 + [False, True, False]


@given(st.floats(min_value=0, max_value=1e8), st.integers(min_value=1, max_value=10_000))
def test_the_first_one_always_passes_whatever_the_clock_says(now: float, per_second: int) -> None:
    """(65536 + 0.05) - 65536 is more than 0.05 in floating point: a machine that is up for a day refused everybody."""
    assert Rate(per_second, 1).next_state(0.0, now) is not None


def test_zero_is_no_limit() -> None:
    assert all(admitted(Rate(0, 1), [1.0] * 1000))


@given(
    st.lists(st.floats(min_value=0, max_value=10), max_size=100).map(sorted),
    st.integers(min_value=1, max_value=50),
    st.integers(min_value=1, max_value=20),
)
def test_never_more_than_burst_and_rate(times: list[float], per_second: int, burst: int) -> None:
    passed = [now for now, ok in zip(times, admitted(Rate(per_second, burst), times), strict=True) if ok]
    for index, start in enumerate(passed):
        for later in range(index, len(passed)):
            assert later - index + 1 <= burst + (passed[later] - start) * per_second + 0.002
