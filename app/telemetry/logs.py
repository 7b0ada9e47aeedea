"""Logs: one JSON object a line on stdout, from us, uvicorn and gunicorn alike; no secret, and no flood from clients.

Loggers are bound explicitly (`logs.get("gateway").bind(session=...)`), never through context variables: callbacks of
one listener share their context (H1).
"""

import logging
import logging.config
import os
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_KEY = re.compile(
    r"(^|[_\-.])(token|authorization|cookie|secret|ticket|api[_-]?key|password|credentials?)s?($|[_\-.])", re.IGNORECASE
)
_SECRET_TEXT = (
    (re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*"), "?[redacted]"),  # query strings carry tokens and tickets
    (re.compile(r"://[^/\s@\"']+@"), "://[redacted]@"),  # user:password@ of a URL
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "[redacted]"),  # a JWT
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 [redacted]"),
)
_NOISY = ("uvicorn.error", "asyncio", "websockets")


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: takes secrets out of values by their key, and out of texts by their looks (invariant 9)."""
    return {key: "[redacted]" if _SECRET_KEY.search(key) else _clean(value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        for pattern, instead in _SECRET_TEXT:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, dict):
        return redact(None, "", value)
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


class AtMostOnceASecond(logging.Filter):
    """A handler's filter, for libraries that write a line per bad request: one a second for each kind of message."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limit = _Limit(1.0, clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name not in _NOISY:
            return True
        suppressed = self._limit.admit(str(record.msg) if record.args else f"{record.module}:{record.lineno}")
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None


class _Limit:
    """Per key: lets one through per interval, and says how many it held back since the last one."""

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._clock = clock
        self._state: dict[str, tuple[float, int]] = {}  # key -> when the next may pass, how many were held back

    def admit(self, key: str) -> int | None:
        now = self._clock()
        next_at, held_back = self._state.get(key, (0.0, 0))
        if now < next_at:
            self._state[key] = (next_at, held_back + 1)
            return None
        if len(self._state) >= 1000:  # keys are constants of the code; should one not be, the memory stays bounded
            self._state.clear()
        self._state[key] = (now + self._interval, 0)
        return held_back


class Limited:
    """A logger for what a client can cause: at most one line per `interval` seconds and event.

    The next line says how many were held back (`suppressed`). Events must be constants."""

    def __init__(self, logger: BoundLogger, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._limit = _Limit(interval, clock)

    def info(self, event: str, **fields: Any) -> None:
        self._log(self._logger.info, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log(self._logger.warning, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """With `exc_info=True` the traceback is part of the line."""
        self._log(self._logger.error, event, fields)

    def _log(self, write: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        suppressed = self._limit.admit(event)
        if suppressed is not None:
            write(event, **(fields | {"suppressed": suppressed} if suppressed else fields))


def get(name: str) -> BoundLogger:
    """A logger of the gateway, `carillon.<name>`."""
    logger: BoundLogger = structlog.stdlib.get_logger(f"carillon.{name}")
    return logger


def _add_pid(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event


_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _add_pid,
    structlog.processors.format_exc_info,
)


def config(level: str) -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`; gunicorn takes it as `logconfig_dict`."""
    severity = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"once_a_second": {"()": AtMostOnceASecond}},
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.ExtraAdder(allow=["suppressed"])],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    redact,
                    structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
                ],
            }
        },
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "filters": ["once_a_second"],
                "stream": "ext://sys.stdout",
            },
        },
        "root": {"level": severity, "handlers": ["stdout"]},
        "loggers": {
            # gunicorn gives its logger a handler of its own; naming it here takes that away
            "gunicorn.error": {"level": severity, "handlers": [], "propagate": True},
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "uvicorn.error": {"level": severity},  # without a level of its own uvicorn thinks that it traces
        },
    }


def configure(level: str) -> None:
    """Sets up logging for this process; `level` as in `settings.log_level`."""
    configure_structlog()
    logging.config.dictConfig(config(level))


def configure_structlog() -> None:
    """Sends structlog's events through the standard library, so that there is one way out."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
