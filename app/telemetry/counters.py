"""Plain integers for what happens per message; a flush each second moves the differences into Prometheus.

A metric call costs microseconds, a delivery must not.
"""

from collections import defaultdict

from prometheus_client import Counter

from app.telemetry import metrics

_PLAIN: dict[str, Counter] = {
    "broker_reconnects": metrics.BROKER_RECONNECTS,
    "broker_publish_errors": metrics.BROKER_PUBLISH_ERRORS,
    "history_holes": metrics.HISTORY_HOLES,
    "bad_requests": metrics.BAD_REQUESTS,
}

_LABELLED: dict[str, Counter] = {
    "opened": metrics.CONNECTIONS_OPENED,
    "closed": metrics.CONNECTIONS_CLOSED,
    "upgrades_refused": metrics.UPGRADES_REFUSED,
    "messages": metrics.MESSAGES_RECEIVED,
    "errors": metrics.ERRORS,
    "received": metrics.PUBLICATIONS_RECEIVED,
    "published": metrics.PUBLICATIONS_PUBLISHED,
    "deliveries": metrics.DELIVERIES,
    "slow_consumers": metrics.SLOW_CONSUMERS,
    "skipped": metrics.SKIPPED,
    "limit_hits": metrics.LIMIT_HITS,
    "presence_updates": metrics.PRESENCE_UPDATES,
    "presence_errors": metrics.PRESENCE_ERRORS,
    "moved": metrics.SESSIONS_MOVED,
    "recoveries": metrics.RECOVERIES,
    "repairs": metrics.REPAIRS,
    "unreadable": metrics.UNREADABLE,
}


class Counters:
    """Totals since the start of the node. Labels come from the code or the settings, never from a client."""

    __slots__ = (*_PLAIN, *_LABELLED, "_flushed")

    broker_reconnects: int
    broker_publish_errors: int
    history_holes: int
    bad_requests: int
    opened: defaultdict[str, int]  # transport
    closed: defaultdict[int, int]  # close code
    upgrades_refused: defaultdict[str, int]  # reason
    messages: defaultdict[str, int]  # type
    errors: defaultdict[int, int]  # error code
    received: defaultdict[str, int]  # namespace
    published: defaultdict[str, int]  # namespace
    deliveries: defaultdict[str, int]  # namespace
    slow_consumers: defaultdict[str, int]  # policy
    skipped: defaultdict[str, int]  # policy
    limit_hits: defaultdict[str, int]  # name of the setting
    presence_updates: defaultdict[str, int]  # namespace
    presence_errors: defaultdict[str, int]  # namespace
    moved: defaultdict[str, int]  # reason
    recoveries: defaultdict[str, int]  # outcome
    repairs: defaultdict[str, int]  # outcome
    unreadable: defaultdict[str, int]  # kind: publication, control, presence

    def __init__(self) -> None:
        for name in _PLAIN:
            setattr(self, name, 0)
        for name in _LABELLED:
            setattr(self, name, defaultdict(int))
        self._flushed: dict[tuple[str, object], int] = {}

    def flush(self) -> None:
        """Moves what was counted since the last flush; called each second and before a scrape."""
        for name, metric in _PLAIN.items():
            self._move(metric, (name, None), getattr(self, name))
        for name, metric in _LABELLED.items():
            for label, total in getattr(self, name).items():
                self._move(metric.labels(label), (name, label), total)

    def _move(self, metric: Counter, key: tuple[str, object], total: int) -> None:
        new = total - self._flushed.get(key, 0)
        if new:
            metric.inc(new)
            self._flushed[key] = total
