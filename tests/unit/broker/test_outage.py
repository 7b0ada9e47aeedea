"""An outage is told from its beginning to its end, in few lines."""

from structlog.testing import capture_logs

from app.broker.outage import Outage


def test_it_is_told_less_often_the_longer_it_lasts() -> None:
    """An hour of attempts each second: 117 lines, not 3,600."""
    outage = Outage("commands")
    with capture_logs() as logs:
        for _ in range(3600):
            outage.failed("refused")
    assert [line["attempt"] for line in logs][:8] == [1, 2, 4, 8, 16, 32, 64, 96]
    assert len(logs) == 117
    assert logs[0] == {
        "event": "broker.unreachable",
        "log_level": "warning",
        "link": "commands",
        "reason": "refused",
        "attempt": 1,
    }


def test_its_end_is_told_once_and_the_next_one_from_its_beginning() -> None:
    outage = Outage("commands")
    with capture_logs() as logs:
        for _ in range(3):
            outage.failed("refused")
        outage.is_over()
        outage.is_over()
        outage.failed("refused")
    assert [(line["event"], line.get("attempt", line.get("attempts"))) for line in logs] == [
        ("broker.unreachable", 1),
        ("broker.unreachable", 2),
        ("broker.reachable", 4),
        ("broker.unreachable", 1),
    ]


def test_nothing_is_said_of_what_never_failed() -> None:
    with capture_logs() as logs:
        Outage("commands").is_over()
    assert logs == []
