"""Pauses, moves and rates are what journals say."""

from tests.chaos.figures import busiest, columns, figures
from tests.chaos.records import Closed, Event, Heard, Opened


def heard(*moments: float) -> list[Event]:
    return [Heard(moment, "kept:x", number, number) for number, moment in enumerate(moments, 1)]


def moved(at: float, away: float, pod: int = 1, code: int = 3001) -> list[Event]:
    return [Closed(at, code, f"pod-{pod}-7-ab"), Opened(at + away)]


def test_the_worst_client_counts() -> None:
    seen = figures(
        {"ann": [*heard(0, 1, 5), *moved(6, 0.5), *moved(7, 2)], "bob": heard(0, 2), "cy": moved(6, 1)}, closes=2
    )
    assert (seen.worst_pause, seen.worst_absence) == (4, 2)
    assert (seen.moves_median, seen.moves_most) == (1, 2)
    assert seen.deliveries == 5


def test_the_planned_rate_is_that_of_the_pod_with_the_most_goodbyes() -> None:
    journals = {
        "ann": [*moved(1, 0.1, pod=1), *moved(9, 0.1, pod=2)],
        "bob": moved(9.5, 0.1, pod=2),
        "cy": moved(2, 0.1, pod=3, code=1006),
    }
    seen = figures(journals, closes=4)
    assert seen.planned_rate == 2 / 4
    assert seen.peak_rate == 2


def test_the_busiest_second() -> None:
    assert busiest([0.0, 1.0, 1.8, 1.9, 2.0, 4.0]) == 4
    assert busiest([]) == 0


def test_a_column_is_a_quarter_of_a_second() -> None:
    journals = {"ann": heard(9.9, 10.0, 10.1, 10.6)}
    assert columns(journals, began=10.0) == [(-0.25, 4), (0.0, 8), (0.25, 0), (0.5, 4)]
