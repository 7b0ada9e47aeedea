"""How long a publication was under way, and when the next one is due."""

from time import perf_counter

import pytest

from loadtest.latency import CATCH_UP, DELIVERY, Latency, Pace, measure
from loadtest.plan import read
from loadtest.share import Share


def test_from_sending_to_receiving() -> None:
    assert measure(100.0, 0.0, 100.25, 0) == Latency(DELIVERY, 250.0)


def test_what_was_sent_while_its_receiver_was_away_is_no_delivery() -> None:
    assert measure(100.0, 0.0, 103.0, 102.0).kind == CATCH_UP
    assert measure(102.5, 0.0, 103.0, 102.0).kind == DELIVERY


def test_what_a_publisher_could_not_send_in_time_waited_too() -> None:
    """It waits for its last answer: a server that stood still for 2 s kept all waiting that was due in between."""
    pace = Pace(every=0.5, first=10.0)
    pace.wait(9.0)
    assert pace.late(10.0) == 0.0
    lates = []
    for _ in range(3):
        assert pace.wait(12.0) == 0.0
        lates.append(pace.late(12.0))
    assert lates == [1.5, 1.0, 0.5]
    assert measure(102.0, 1.5, 102.25, 0) == Latency(DELIVERY, 1750.0)
    assert measure(102.0, 1.5, 102.25, 101.0).kind == DELIVERY, "it was sent after its receiver had come back"


def test_what_nobody_came_to_was_asked_for_too() -> None:
    pace = Pace(every=0.5, first=10.0)
    pace.wait(9.0)
    assert pace.missed(9.5) == 0, "it is not due yet"
    assert [pace.missed(now) for now in (10.0, 10.4, 10.6, 12.0)] == [1, 1, 2, 5]


def test_a_publisher_that_cannot_keep_up_is_seen_in_what_the_rate_asked_for() -> None:
    share = Share(read({}), 0, lambda **_: None)
    lates = []
    for late in share.due(Pace(every=100, first=perf_counter() - 950)):  # ten were due, and two are sent
        lates.append(late)
        if len(lates) == 2:
            share.quiet.set()
    assert share.figures.planned == 10
    assert share.figures.late_ms == pytest.approx(950_000, abs=40_000)


def test_clocks_that_differ_are_told_and_nothing_is_negative() -> None:
    assert measure(100.0, 0.0, 99.5, 0) == Latency(DELIVERY, 0.0, early=True)


def test_the_pace_is_even_however_long_a_publication_takes() -> None:
    pace = Pace(every=2.0, first=10.0)
    assert [pace.wait(now) for now in (9.0, 10.0, 15.0, 15.0, 15.0)] == [1.0, 2.0, 0.0, 1.0, 3.0]
