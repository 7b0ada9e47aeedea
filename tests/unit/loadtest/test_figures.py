"""What processes have counted becomes one verdict, and one part of the report."""

import json
from pathlib import Path

import pytest

from loadtest import report
from loadtest.checker import Findings
from loadtest.figures import Figures, load, total
from loadtest.plan import read


def fine(**fields: int) -> Figures:
    return Figures(clients=2, settled=2, with_history=2, planned=10, accepted=10, delivered=20, **fields)


def test_a_process_tells_its_figures_to_another() -> None:
    one = fine(lost=1)
    one.closes["3008"] = 2
    assert load(json.loads(json.dumps(one.dump()))) == one


def test_processes_are_added_up() -> None:
    one, other = fine(lost=1), fine(lost=2)
    one.closes["3008"], other.closes["3008"] = 1, 2
    one.lag_ms, other.lag_ms = 30.0, 20.0
    one.late_ms, other.late_ms = 5.0, 6.0
    whole = total([one, other])
    assert (whole.clients, whole.lost, whole.closes["3008"]) == (4, 3, 3)
    assert (whole.lag_ms, whole.late_ms) == (30.0, 6.0)


def test_findings_of_clients_are_added_up() -> None:
    figures = Figures()
    figures.take(Findings(lost=1, repeated=2, disordered=3, skipped=4, told=5, recovered=6))
    figures.take(Findings(lost=1))
    assert (figures.lost, figures.repeated, figures.disordered) == (2, 2, 3)
    assert (figures.skipped, figures.told, figures.recovered) == (4, 5, 6)


def test_what_clients_were_told_they_miss_stands_beside_nothing_was_lost() -> None:
    assert report.verdict(fine()).endswith("20 deliveries to 2 clients")
    assert report.verdict(fine(told=3)).endswith("; but 3 times a client was told that something may be missing")
    assert report.verdict(fine(skipped=2)).endswith("; but 2 publications were left out for slow clients, and said so")


def test_all_well_is_no_word() -> None:
    assert fine(told=3, skipped=2).wrong() == []
    assert fine().doubts() == []


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (fine(lost=3), "3 publications were lost"),
        (fine(repeated=1), "delivered twice"),
        (fine(disordered=1), "out of order"),
        (Figures(clients=2, settled=1, absent=1, delivered=1), "1 clients were not connected at the end"),
        (Figures(clients=2, settled=1, delivered=1), "1 clients did not say what they have"),
        (Figures(clients=2, settled=2), "nothing was tested"),
    ],
)
def test_what_fails_a_run(figures: Figures, says: str) -> None:
    assert [line for line in figures.wrong() if says in line]
    assert report.verdict(figures).startswith("FAILED")


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (Figures(lag_ms=150.0), "late for itself by up to 150 ms"),
        (Figures(late_ms=2000.0), "up to 2000 ms after they were due"),
        (Figures(planned=10, accepted=8), "only 8 of 10"),
        (Figures(clock=4), "clocks of the machines differ"),
        (Figures(settled=3, with_history=1), "2 clients were in rooms without history"),
    ],
)
def test_what_makes_figures_doubtful(figures: Figures, says: str) -> None:
    assert [line for line in figures.doubts() if says in line]


def test_the_report_begins_with_our_own_part(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html><script>'<body>'</script><body>\n<div id='root'></div></body></html>")
    report.insert(page, report.section(read({}), fine(lost=3)))
    assert "</script><body><section" in page.read_text()
    assert "3 publications were lost" in page.read_text()


def test_a_page_that_is_none_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no <body>"):
        report.insert(page, "")
