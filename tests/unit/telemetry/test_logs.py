"""Log lines: JSON, without secrets, without floods."""

import io
import json
import logging
import logging.config
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.telemetry import logs

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What was logged so far; puts the root logger back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    config = logs.config("info")
    config["handlers"]["stdout"]["stream"] = stream
    logs.configure_structlog()
    logging.config.dictConfig(config)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = handlers, level


class TestOneStream:
    def test_ours(self, lines: Lines) -> None:
        logs.get("hub").bind(session="s1").info("joined", room="chat:a")
        (line,) = lines()
        assert line["event"] == "joined"
        assert (line["logger"], line["level"]) == ("carillon.hub", "info")
        assert (line["session"], line["room"]) == ("s1", "chat:a")
        assert {"timestamp", "pid"} <= set(line)

    @pytest.mark.parametrize("name", ["gunicorn.error", "uvicorn.error", "asyncio"])
    def test_that_of_libraries(self, lines: Lines, name: str) -> None:
        logging.getLogger(name).warning("of %s", "theirs")
        (line,) = lines()
        assert (line["event"], line["logger"], line["level"]) == ("of theirs", name, "warning")

    def test_below_the_level_is_left_out(self, lines: Lines) -> None:
        logs.get("hub").debug("detail")
        logging.getLogger("uvicorn.error").debug("detail")
        logging.getLogger("uvicorn.access").warning("GET /")
        assert lines() == []

    def test_a_traceback_is_part_of_the_line(self, lines: Lines) -> None:
        try:
            raise ValueError(f"token was {JWT}")
        except ValueError:
            logs.get("hook").exception("hook failed")
        (line,) = lines()
        assert "ValueError" in line["exception"]
        assert JWT not in line["exception"]


class TestSecrets:
    """Invariant 9."""

    @pytest.mark.parametrize(
        "key",
        ["token", "Authorization", "cookie", "set-cookie", "api_key", "x-api-key", "ticket", "hmac_secret", "password"],
    )
    def test_by_key(self, lines: Lines, key: str) -> None:
        logs.get("auth").info("refused", **{key: "hush", "headers": {key: "hush"}, "list": [{key: "hush"}]})
        assert "hush" not in json.dumps(lines())

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("GET /ws?token=hush&x=1 HTTP/1.1", "GET /ws?[redacted] HTTP/1.1"),
            ("cannot reach redis://user:hush@host:6379/0", "cannot reach redis://[redacted]@host:6379/0"),
            (f"bad token {JWT}.", "bad token [redacted]."),
            ("header was Bearer hush", "header was Bearer [redacted]"),
        ],
    )
    def test_by_looks(self, lines: Lines, text: str, left: str) -> None:
        logs.get("auth").info(text, reason=text)
        logging.getLogger("uvicorn.error").warning("%s", text)
        ours, theirs = lines()
        assert ours["event"] == ours["reason"] == theirs["event"] == left

    def test_what_only_sounds_like_one_stays(self, lines: Lines) -> None:
        logs.get("hub").info("is it? yes", idempotency_key="k", tokens_left=1, room="chat:a?b")
        (line,) = lines()
        assert line["idempotency_key"] == "k"
        assert line["event"] == "is it? yes"
        assert line["room"] == "chat:a?b"


class TestFloods:
    def test_a_limited_logger_counts_what_it_holds_back(self, lines: Lines) -> None:
        now = [0.0]
        log = logs.Limited(logs.get("session"), interval=1.0, clock=lambda: now[0])
        for _ in range(100):
            log.warning("bad frame", session="s")
        log.warning("another event")
        now[0] = 1.0
        log.warning("bad frame", session="t")
        first, other, second = lines()
        assert "suppressed" not in first
        assert other["event"] == "another event"
        assert (second["session"], second["suppressed"]) == ("t", 99)

    def test_libraries_write_a_kind_of_line_once_a_second(self, lines: Lines) -> None:
        for number in range(100):
            logging.getLogger("uvicorn.error").warning("Bad request %d", number)
        assert len(lines()) == 1

    def test_events_that_are_no_constants_take_bounded_memory(self) -> None:
        log = logs.Limited(logs.get("session"))
        for number in range(5000):
            log.info(f"event {number}")
        assert len(log._limit._state) <= 1000
