"""What is logged while the broker cannot be reached: not each attempt, as all nodes make them all the time it lasts."""

import structlog

log = structlog.get_logger()

#: Failures in a row from which on only each so many is logged; the first ones at 1, 2, 4, 8, 16.
SELDOM = 32


class Outage:
    """The failures of one connection, from the first one to the next success."""

    def __init__(self, link: str) -> None:
        self._link = link
        #: So far; 0: it is over, or none has begun.
        self.failures = 0

    def failed(self, reason: str) -> None:
        self.failures += 1
        if self.failures % SELDOM == 0 or self.failures.bit_count() == 1:
            log.warning("broker.unreachable", link=self._link, reason=reason, attempt=self.failures)

    def is_over(self) -> None:
        if self.failures:
            log.info("broker.reachable", link=self._link, attempts=self.failures + 1)
        self.failures = 0
